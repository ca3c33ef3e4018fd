"""Real S3 servers for tests and benchmarks: moto's HTTP server, and a Ceph object gateway of one node.

Both keep their objects in memory, listen on 127.0.0.1 only and are gone when their `with` block ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

CEPH_PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
SECONDS = 60.0  # until a server must answer
MEMORY = 4 << 30  # bytes that Ceph takes for objects

CEPH_CONF = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
# radosgw asks for 'secure' by itself, which auth 'none' cannot give
ms_mon_client_mode = crc
ms_bind_msgr1 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
run_dir = {folder}
admin_socket =
log_file = {folder}/log/$name.log
crash_dir = {folder}/log
keyring = /dev/null
mon_data = {folder}/mon
mon_data_avail_crit = 1
mon_data_avail_warn = 1
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
paxos_propose_interval = 0.05
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = {memory}
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
rgw_rados_pool_pg_num_min = 1
[client]
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_override_bucket_index_max_shards = 1
rgw_dynamic_resharding = false
rgw_run_sync_thread = false
rgw_enable_lc_threads = false
rgw_cache_expiry_interval = 0
debug_rgw = 0
"""


class S3Server(NamedTuple):
    """A server that answers."""

    endpoint: str
    access_key: str
    secret_key: str

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The variables by which boto3 and tagger find it, or find it behind another `endpoint`."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def client(self) -> Any:
        """A boto3 client of its own, for what a test puts there and looks up."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(request_checksum_calculation="when_required"),
        )


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    """moto's server in a process of its own; it takes any credentials."""
    port = free_port()
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("COV", "AWS_"))}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=log, env=environment)
        try:
            _wait_for_answer(f"http://127.0.0.1:{port}/moto-api/", lambda: _check_running(process, log))
            yield S3Server(f"http://127.0.0.1:{port}", "test", "testtest")
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def ceph_server() -> Iterator[S3Server]:
    """A monitor, an object store and a gateway of Ceph; about 3 s (Debian: ceph-mon ceph-osd radosgw ceph-common)."""
    missing = [name for name in CEPH_PROGRAMS if shutil.which(name) is None]
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)}: apt-get install ceph-mon ceph-osd radosgw ceph-common")
    folder = Path(tempfile.mkdtemp(prefix="tagger-ceph-"))
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        yield _start_ceph(folder, daemons)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _start_ceph(folder: Path, daemons: list[subprocess.Popen[bytes]]) -> S3Server:
    for name in ("mon", "osd", "rgw", "log"):
        (folder / name).mkdir()
    port, mon_port, fsid, osd = free_port(), free_port(), str(uuid.uuid4()), str(uuid.uuid4())
    conf = folder / "ceph.conf"
    conf.write_text(CEPH_CONF.format(fsid=fsid, folder=folder, port=port, mon_port=mon_port, memory=MEMORY))

    def once(program: str, *arguments: str) -> None:
        command = [program, "-c", str(conf), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with open(folder / "log" / f"{program}.out", "wb") as log:
            command = [program, "-c", str(conf), *arguments, "-f"]
            daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return daemons[-1]

    monmap = str(folder / "monmap")
    address = f"[v2:127.0.0.1:{mon_port}]"
    subprocess.run(
        ["monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, monmap],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    once("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
    start("ceph-mon", "-i", "a")
    once("ceph", "osd", "new", osd, "0")
    once("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    start("ceph-osd", "-i", "0")
    user = ("--uid=test", "--display-name=test", "--access-key=test", "--secret=testtest")
    once("radosgw-admin", "user", "create", *user)
    gateway = start("radosgw", "-n", "client.rgw")
    with open(folder / "log" / "radosgw.out", "rb") as log:
        _wait_for_answer(f"http://127.0.0.1:{port}/", lambda: _check_running(gateway, log))
    return S3Server(f"http://127.0.0.1:{port}", "test", "testtest")


def _check_running(process: subprocess.Popen[bytes], log: Any) -> None:
    if process.poll() is not None:
        log.seek(0)
        raise RuntimeError(f"the server ended: {log.read()[-2000:].decode(errors='replace')}")


def _wait_for_answer(url: str, check: Callable[[], None]) -> None:
    until = time.monotonic() + SECONDS
    while True:
        check()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
