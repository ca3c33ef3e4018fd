"""Small stand-ins and helpers for tests: drawn photos, manifests of any kind, runs in and out of process."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from tagger.errors import ImageError
from tagger.source.fetch import Fetched

if TYPE_CHECKING:
    from fault_proxy import FaultProxy
    from s3_servers import S3Server

    from tagger.tagging.run import RunReport

Row = Mapping[str, Any]
MakeManifest = Callable[..., Path]


def draw_photo(path: Path, number: int = 0, size: tuple[int, int] = (48, 64)) -> Path:
    """A small photo at `path`, in the format its extension names; every `number` gives other bytes."""
    image = Image.new("RGB", size, (number * 37 % 256, number * 101 % 256, number * 11 % 256))
    draw = ImageDraw.Draw(image)
    draw.rectangle((8, 8, size[0] - 8, size[1] - 8), fill=(number * 59 % 256, 255 - number * 23 % 256, 128))
    draw.text((2, 2), str(number), fill=(0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def write_manifest(path: Path, rows: Sequence[Row], columns: Sequence[str] | None = None) -> Path:
    """A manifest of the kind that `path`'s extension names; columns are those of the first row."""
    names = list(columns or rows[0])
    plain = path.name.removesuffix(".gz")
    if plain.endswith((".csv", ".tsv")):
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t" if plain.endswith(".tsv") else ",", lineterminator="\n")
        writer.writerow(names)
        writer.writerows([["" if row.get(name) is None else row.get(name) for name in names] for row in rows])
        data = text.getvalue().encode()
    elif plain.endswith((".jsonl", ".ndjson")):
        data = "".join(json.dumps({name: row.get(name) for name in names}) + "\n" for row in rows).encode()
    else:
        sink = io.BytesIO()
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), sink)
        data = sink.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def tag(manifest: str | Path, bundle: str, out: str | Path, **options: Any) -> RunReport:
    """`tagger run` in this process, on the CPU with two threads unless `options` says otherwise."""
    from tagger.tagging.run import RunOptions, run_tagging  # here: tests of the layers below must not hang on it

    settings: dict[str, Any] = {"device": "cpu", "workers": 2, "max_failed": 1.0} | options
    return run_tagging(RunOptions(manifest=str(manifest), bundle=bundle, out=str(out), **settings), threading.Event())


def read_rows(folder: str | Path) -> list[dict[str, Any]]:
    """All rows of the Parquet files in a folder."""
    return [row for file in sorted(Path(folder).glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def read_tags(out: str | Path) -> list[dict[str, Any]]:
    """All rows of `OUT/tags`, as a plain glob finds them."""
    files = sorted(Path(out, "tags").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def run_cli(
    *arguments: str | Path, cwd: str | Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """`tagger …` as a process of its own; its exit code, standard output and standard error."""
    return subprocess.run(
        [sys.executable, "-m", "tagger", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_python(code: str, *arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Python `code` as a process of its own, `arguments` in its sys.argv[1:]."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


DROP_ROOT = """
import os
if os.geteuid() == 0:  # root may read everything: go on as nobody
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
"""
"""For `run_python`, after the imports: permissions hold from here on, whoever runs the tests."""


class Buckets:
    """Buckets of a real S3 server, by way of a proxy that counts and, if told so, breaks."""

    def __init__(self, server: S3Server) -> None:
        from fault_proxy import FaultProxy

        self._client = server.client()  # past the proxy
        self._proxy = FaultProxy(server.endpoint)
        self._made = 0
        self.variables = server.environment(self._proxy.endpoint)

    def __enter__(self) -> Buckets:
        self._proxy.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        from tagger.storage import s3

        s3.disconnect()
        self._client.close()
        self._proxy.__exit__(*error)

    def make(self) -> Bucket:
        """A new bucket; the proxy is kind again and begins to count anew."""
        self._made += 1
        name = f"test-{self._made}"
        self._client.create_bucket(Bucket=name)
        self._proxy.plan = lambda request: None
        self._proxy.log.clear()
        return Bucket(name, self._client, self._proxy)


class Bucket:
    """One bucket."""

    def __init__(self, name: str, client: Any, proxy: FaultProxy) -> None:
        self.name, self.client, self.proxy = name, client, proxy
        self.uri = f"s3://{name}"

    def put(self, key: str, data: bytes) -> str:
        """Put an object there; its s3:// address."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"{self.uri}/{key}"

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with `prefix`, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Put the files below `folder` there; the s3:// address of the whole."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
        return f"{self.uri}/{prefix}"

    def fetch(self, prefix: str, folder: Path) -> Path:
        """Copy all objects below `prefix` to a local folder."""
        for key in self.keys(f"{prefix}/"):
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(key))
        return folder


class DictFetcher:
    """Photos out of a dictionary: bytes, or an `ImageError` to raise. Counts how often each was asked for."""

    def __init__(self, photos: Mapping[str, bytes | ImageError]) -> None:
        self.photos = photos
        self.calls: list[str] = []

    def __call__(self, uri: str) -> Fetched:
        self.calls.append(uri)
        photo = self.photos.get(uri, ImageError("not_found", "no such photo"))
        if isinstance(photo, ImageError):
            raise photo
        return Fetched(photo, f"{len(photo):x}")
