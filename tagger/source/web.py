"""Photos from the open web, for a run with `--allow-http`.

A manifest is somebody else's text, so a URL in it must not reach what only this machine can reach. The host is resolved
once per hop, every address it has is checked, and the connection goes to the checked address itself, with the host's
name for TLS and for the Host header: a name that resolves to something else a moment later (DNS rebinding) changes
nothing. Redirects are followed by hand, each hop checked in the same way.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3 import exceptions

from tagger.errors import ImageError
from tagger.source.fetch import Fetched

POOLS_KEPT = 64  # connection pools, one per host and checked address
CHUNK = 1 << 16  # bytes

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class WebLimits:
    """How much of the web a photo may cost."""

    max_bytes: int = 50_000_000
    total_seconds: float = 60.0  # of one photo, redirects and retries included
    connect_seconds: float = 10.0
    read_seconds: float = 20.0  # without a byte
    redirects: int = 5
    attempts: int = 4  # at a throttled, dropped or failing answer
    per_host: int = 8  # requests under way at once


def is_public(address: IPAddress) -> bool:
    """Whether an address is one of the public internet, looked at through the IPv6 forms that carry an IPv4 one."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour or _nat64(address)
        if address.teredo is not None:
            return False
        if carried is not None:
            return is_public(carried)
        if address.scope_id is not None:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    for prefix in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96"):
        if address in ipaddress.ip_network(prefix):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of a host name, by the system's resolver; raises `OSError` where it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class WebSource:
    """Fetches http and https URLs; one instance serves all threads of a run."""

    def __init__(
        self,
        limits: WebLimits | None = None,
        allow_private: bool = False,
        resolve: Callable[[str, int], list[str]] = resolve_host,
        allowed: Callable[[IPAddress], bool] = is_public,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            allow_private: fetch from private and loopback addresses too (`--allow-private-http`).
            resolve: host and port → addresses; `allowed` says which of them may be connected to.
        """
        self._limits = limits or WebLimits()
        self._resolve = resolve
        self._allowed: Callable[[IPAddress], bool] = (lambda address: True) if allow_private else allowed
        self._sleep = sleep
        self._lock = threading.Lock()
        self._pools: OrderedDict[tuple[str, str, int, str], urllib3.HTTPConnectionPool] = OrderedDict()
        self._busy: dict[str, threading.BoundedSemaphore] = {}

    def __call__(self, uri: str) -> Fetched:
        """The photo's bytes and its ETag or Last-Modified; raises `ImageError`."""
        deadline = time.monotonic() + self._limits.total_seconds
        for attempt in range(1, self._limits.attempts + 1):
            try:
                return self._follow(uri, deadline)
            except _TryAgain as again:
                pause = again.after if again.after is not None else random.uniform(0, 0.5 * 2**attempt)
                if attempt == self._limits.attempts or time.monotonic() + pause > deadline:
                    raise again.error from None
                self._sleep(pause)
        raise AssertionError("unreachable: the last attempt raises")

    def _follow(self, uri: str, deadline: float) -> Fetched:
        for _ in range(self._limits.redirects + 1):
            parts, port = _checked_url(uri)
            with self._slot(parts.hostname or ""):
                answer = self._request(parts, port, deadline)
            if isinstance(answer, Fetched):
                return answer
            uri = urljoin(uri, answer)
        raise ImageError("io_error", f"more than {self._limits.redirects} redirects")

    def _request(self, parts: SplitResult, port: int, deadline: float) -> Fetched | str:
        """The photo, or the place that the answer redirects to."""
        pool = self._pool(parts, port)
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        remaining = max(0.1, deadline - time.monotonic())
        limits = self._limits
        try:
            response = pool.urlopen(
                "GET",
                target,
                headers={
                    "Host": parts.netloc.rsplit("@", 1)[-1],
                    "User-Agent": "tagger",
                    "Accept": "image/*,*/*;q=0.5",
                },
                timeout=urllib3.Timeout(
                    connect=min(limits.connect_seconds, remaining), read=min(limits.read_seconds, remaining)
                ),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                assert_same_host=False,
            )
        except exceptions.NewConnectionError:  # before TimeoutError, which it also is
            raise _TryAgain(ImageError("io_error", "the host refused the connection")) from None
        except exceptions.TimeoutError:
            raise _TryAgain(ImageError("timeout", "the host did not answer in time")) from None
        except exceptions.SSLError:
            raise _TryAgain(ImageError("io_error", "the host's certificate does not fit")) from None
        except (exceptions.HTTPError, OSError, ValueError) as error:
            raise _TryAgain(ImageError("io_error", f"the connection broke: {type(error).__name__}")) from None
        whole = False
        try:
            location = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                return location
            _check_status(response)
            data = self._body(response, deadline)
            whole = True
        finally:
            if whole:
                response.release_conn()
            else:
                response.close()  # a connection with half an answer in it is of no further use
        return Fetched(data, response.headers.get("ETag") or response.headers.get("Last-Modified") or "")

    def _body(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        limit = self._limits.max_bytes
        declared = response.headers.get("Content-Length", "")
        if declared.isdigit() and int(declared) > limit:
            raise ImageError("too_large", f"{int(declared):,} bytes, above the limit of {limit:,}")
        chunks, size = [], 0
        try:
            while chunk := response.read1(CHUNK):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise ImageError("too_large", f"above the limit of {limit:,} bytes")
                if time.monotonic() > deadline:
                    raise ImageError("timeout", f"not whole after {self._limits.total_seconds:g} s")
        except exceptions.TimeoutError:
            raise _TryAgain(ImageError("timeout", "the host stopped sending")) from None
        except (exceptions.HTTPError, OSError) as error:
            raise _TryAgain(ImageError("io_error", f"the connection broke: {type(error).__name__}")) from None
        if declared.isdigit() and size < int(declared):
            raise _TryAgain(ImageError("io_error", f"{size:,} of {declared} bytes came"))
        return b"".join(chunks)

    def _pool(self, parts: SplitResult, port: int) -> urllib3.HTTPConnectionPool:
        """A connection pool to a checked address of the host."""
        host = parts.hostname or ""
        address = self._checked_address(host, port)
        key = (parts.scheme, host, port, address)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                if parts.scheme == "https":
                    pool = urllib3.HTTPSConnectionPool(
                        address,
                        port,
                        maxsize=self._limits.per_host,
                        cert_reqs="CERT_REQUIRED",
                        server_hostname=host,
                        assert_hostname=host,
                    )
                else:
                    pool = urllib3.HTTPConnectionPool(address, port, maxsize=self._limits.per_host)
                self._pools[key] = pool
                if len(self._pools) > POOLS_KEPT:
                    self._pools.popitem(last=False)[1].close()
            else:
                self._pools.move_to_end(key)
        return pool

    def _checked_address(self, host: str, port: int) -> str:
        try:
            addresses = self._resolve(host.rstrip("."), port)
        except (OSError, UnicodeError):
            raise _TryAgain(ImageError("io_error", "the host name does not resolve")) from None
        for address in addresses:
            try:
                ok = self._allowed(ipaddress.ip_address(address))
            except ValueError:
                ok = False
            if not ok:  # one private address among public ones is reason enough
                raise ImageError("blocked_address", "the host is not on the public internet")
        if not addresses:
            raise ImageError("io_error", "the host name does not resolve")
        return addresses[0]

    def _slot(self, host: str) -> threading.BoundedSemaphore:
        with self._lock:
            return self._busy.setdefault(host, threading.BoundedSemaphore(self._limits.per_host))

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()


class _TryAgain(Exception):
    """An answer that another attempt may better."""

    def __init__(self, error: ImageError, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after  # seconds, where the host says so


def _checked_url(uri: str) -> tuple[SplitResult, int]:
    """The parts of an http(s) URL that is written in one unmistakable way; raises `ImageError` for any other."""
    if any(ord(c) <= 0x20 or c in "\\\x7f" for c in uri):
        raise ImageError("blocked_address", "the URL holds white space, a control character or a backslash")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise ImageError("blocked_address", "the URL is malformed") from None
    if parts.scheme not in ("http", "https"):
        raise ImageError("blocked_address", f"{parts.scheme or 'no scheme'}: only http and https are fetched")
    if not parts.hostname:
        raise ImageError("blocked_address", "the URL names no host")
    if "@" in parts.netloc:
        raise ImageError("blocked_address", "the URL carries a user name or password")
    if "%" in parts.netloc:
        raise ImageError("blocked_address", "the host is percent-encoded or has a zone")
    return parts, port or (443 if parts.scheme == "https" else 80)


def _check_status(response: urllib3.BaseHTTPResponse) -> None:
    status = response.status
    if status == 200:
        return
    if status in (404, 410):
        raise ImageError("not_found", f"the host answers {status}")
    if status in (401, 403):
        raise ImageError("forbidden", f"the host answers {status}")
    if status in (429, 503):
        raise _TryAgain(ImageError("throttled", f"the host answers {status}"), _retry_after(response))
    if status in (408, 500, 502, 504):
        raise _TryAgain(ImageError("timeout" if status in (408, 504) else "io_error", f"the host answers {status}"))
    raise ImageError("io_error", f"the host answers {status}")


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Seconds from a Retry-After header in either of its forms."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
