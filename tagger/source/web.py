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
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import count
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3
from urllib3 import exceptions

from tagger.errors import ImageError
from tagger.source.connections import Pools
from tagger.source.fetch import Fetched
from tagger.source.politeness import GivenUp, Host, Hosts, Pace

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
    attempts: int = 4  # at a dropped or failing answer; at a throttled one, at least
    pace: Pace = field(default_factory=Pace)  # of the requests to one host


def is_public(address: IPAddress) -> bool:
    """Whether an address is one of the public internet, looked at through the IPv6 forms that carry an IPv4 one."""
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour or _carried_ipv4(address)
        if address.teredo is not None:
            return False
        if carried is not None:
            return is_public(carried)
        if address.scope_id is not None:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, dummies among them
        "64:ff9b:1::/48",  # a site's own NAT64: only the site knows which IPv4 address is in it
        "fec0::/10",  # site-local, out of use
        "3fff::/20",  # documentation
    )
)
"""What `ipaddress` takes for public, in one version of Python or another."""

_CARRY_IPV4 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))


def _carried_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address in the last 32 bits of a NAT64, IPv4-compatible or ISATAP address."""
    isatap = (int(address) >> 32) & 0xFDFFFFFF == 0x5EFE
    if isatap or any(address in network for network in _CARRY_IPV4):
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
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            allow_private: fetch from private and loopback addresses too (`--allow-private-http`).
            resolve: host and port → addresses; `allowed` says which of them may be connected to.
            clock: seconds, of which `sleep` waits some; for the pauses between requests.
        """
        self._limits = limits or WebLimits()
        self._resolve = resolve
        self._allowed: Callable[[IPAddress], bool] = (lambda address: True) if allow_private else allowed
        self._sleep = sleep
        self._hosts = Hosts(self._limits.pace, clock, sleep)
        self._pools = Pools(self._limits.pace.at_once)

    def __call__(self, uri: str) -> Fetched:
        """The photo's bytes and its ETag or Last-Modified; raises `ImageError`."""
        answer = self._try_and_try_again("GET", uri)
        assert isinstance(answer, Fetched)
        return answer

    def probe(self, uri: str) -> tuple[int, str]:
        """Size in bytes and change mark as a HEAD request tells them; (0, "") where it does not.

        Hosts that refuse HEAD, as stores do whose URLs are signed for GET, are asked once.
        """
        try:
            answer = self._try_and_try_again("HEAD", uri)
        except ImageError:
            return 0, ""  # what is wrong with it, the photo itself will tell
        assert not isinstance(answer, Fetched)
        return answer

    def _try_and_try_again(self, method: str, uri: str) -> Fetched | tuple[int, str]:
        budget = _Budget(self._limits.total_seconds)
        for attempt in count(1):
            try:
                return self._follow(method, uri, budget, is_first=attempt == 1)
            except _TryAgain as again:
                enough = attempt >= self._limits.attempts
                if again.host is not None:  # its next turn waits for as long as it asked
                    if enough and (again.host.is_given_up or method == "HEAD"):
                        raise again.error from None
                    continue
                pause = random.uniform(0, 0.5 * 2**attempt)
                if enough or pause > budget.left():
                    raise again.error from None
                self._sleep(pause)
        raise AssertionError("unreachable: attempts do not end by themselves")

    def _follow(self, method: str, uri: str, budget: _Budget, is_first: bool) -> Fetched | tuple[int, str]:
        for _ in range(self._limits.redirects + 1):
            parts, port = _checked_url(uri)
            host = self._hosts.get(parts.hostname or "")
            if method == "HEAD" and host.refuses_head:
                return 0, ""
            try:
                if is_first:
                    host.check_patience()
                with host.turn(budget.left()) as waited:
                    budget.extend(waited)
                    answer = self._request(method, parts, port, host, budget.deadline)
            except GivenUp:
                raise ImageError("throttled", "the host has been answering nothing but 429 or 503") from None
            except TimeoutError:
                raise ImageError("timeout", "other photos of the same host took too long") from None
            if not isinstance(answer, str):
                return answer
            uri = urljoin(uri, answer)
        raise ImageError("io_error", f"more than {self._limits.redirects} redirects")

    def _request(
        self, method: str, parts: SplitResult, port: int, host: Host, deadline: float
    ) -> Fetched | tuple[int, str] | str:
        """The photo, or what HEAD tells of it, or the place that the answer redirects to."""
        name = parts.hostname or ""
        pool = self._pools.get(parts.scheme, name, port, self._checked_address(name, port))
        with self._pools.watch.until(deadline):
            try:
                response = self._open(pool, method, parts, deadline)
            except _TryAgain:
                if time.monotonic() > deadline:
                    raise self._late() from None
                raise
            whole = False
            try:
                if time.monotonic() > deadline:  # a header that the watch cut off may look like a whole one
                    raise self._late()
                location = response.headers.get("Location")
                if response.status in (301, 302, 303, 307, 308) and location:
                    return location
                _check_status(response, host, method)
                mark = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
                if method == "HEAD":
                    size = response.headers.get("Content-Length", "")
                    whole = True
                    return (int(size), mark) if size.isdigit() else (0, "")
                data = self._body(response, deadline)
                whole = True
                return Fetched(data, mark)
            finally:
                if whole:
                    response.release_conn()
                else:
                    response.close()  # a connection with half an answer in it is of no further use

    def _open(
        self, pool: urllib3.HTTPConnectionPool, method: str, parts: SplitResult, deadline: float
    ) -> urllib3.BaseHTTPResponse:
        """The answer up to its body; raises `_TryAgain`."""
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        remaining = max(0.1, deadline - time.monotonic())
        limits = self._limits
        try:
            return pool.urlopen(
                method,
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

    def _late(self) -> ImageError:
        return ImageError("timeout", f"not whole after {self._limits.total_seconds:g} s")

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
                    raise self._late()
        except exceptions.TimeoutError:
            raise _TryAgain(ImageError("timeout", "the host stopped sending")) from None
        except (exceptions.HTTPError, OSError) as error:
            if time.monotonic() > deadline:  # the watch has shut the connection
                raise self._late() from None
            raise _TryAgain(ImageError("io_error", f"the connection broke: {type(error).__name__}")) from None
        if time.monotonic() > deadline:
            raise self._late()
        if declared.isdigit() and size < int(declared):
            raise _TryAgain(ImageError("io_error", f"{size:,} of {declared} bytes came"))
        return b"".join(chunks)

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

    def close(self) -> None:
        """Close all connections."""
        self._pools.close()


class _Budget:
    """The time that one photo has left. What its hosts ask to wait does not count."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def extend(self, seconds: float) -> None:
        self.deadline += seconds


class _TryAgain(Exception):
    """An answer that another attempt may better."""

    def __init__(self, error: ImageError, host: Host | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.host = host  # that asked to be left alone for a while


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


def _check_status(response: urllib3.BaseHTTPResponse, host: Host, method: str) -> None:
    """Raises what the status says, and tells the host's keeper of it."""
    status = response.status
    if status in (429, 503):
        host.throttled(_retry_after(response))
        raise _TryAgain(ImageError("throttled", f"the host answers {status}"), host)
    host.answered()
    host.refuses_head |= method == "HEAD" and status in (400, 401, 403, 405, 501)
    if status == 200:
        return
    if status in (404, 410):
        raise ImageError("not_found", f"the host answers {status}")
    if status in (401, 403):
        raise ImageError("forbidden", f"the host answers {status}")
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
