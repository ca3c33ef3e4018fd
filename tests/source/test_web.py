"""Photos from the web: addresses are checked, answers are bounded, faults are told apart."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tagger.errors import ImageError
from tagger.source.politeness import Pace
from tagger.source.web import IPAddress, WebLimits, WebSource, is_public

BODY = b"\xff\xd8\xff" + b"x" * 5000


class Site:
    """A real HTTP server on loopback whose answers a test sets path by path."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []  # path, Host header
        self.methods: list[str] = []
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                site.requests.append((self.path, self.headers.get("Host", "")))
                site.methods.append(self.command)
                site.answers.get(f"HEAD {path}" if self.command == "HEAD" else path, photo)(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def url(self, path: str = "/photo.jpg", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


def photo(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BODY)))
    handler.send_header("ETag", '"abc"')
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(BODY)


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def only_this_loopback(address: IPAddress) -> bool:
    return str(address) == "127.0.0.1"


class Clock:
    """Real time, and what was slept, which costs none."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._ahead = 0.0

    def now(self) -> float:
        return time.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._ahead += seconds


IMPATIENT = Pace(patience=0)


def source(clock: Clock | None = None, pace: Pace = IMPATIENT, **limits: float) -> WebSource:
    clock = clock or Clock()
    settings = WebLimits(pace=pace, **limits)  # type: ignore[arg-type]
    return WebSource(settings, allowed=only_this_loopback, clock=clock.now, sleep=clock.sleep)


def kind_of(fetch: Callable[[str], object], uri: str) -> str:
    with pytest.raises(ImageError) as caught:
        fetch(uri)
    return caught.value.kind


def test_a_photo_comes_whole_with_its_etag(site: Site) -> None:
    web = source()
    fetched = web(site.url("/a.jpg?x=1&y=%20"))
    web.close()
    assert fetched.data == BODY
    assert fetched.etag == '"abc"'
    assert site.requests == [("/a.jpg?x=1&y=%20", f"127.0.0.1:{site.port}")]


def test_the_connection_goes_to_the_checked_address_with_the_hosts_name(site: Site) -> None:
    web = WebSource(resolve=lambda host, port: ["127.0.0.1"], allowed=only_this_loopback)
    assert web(site.url(host="shop.example")).data == BODY
    web.close()
    assert site.requests[0][1] == f"shop.example:{site.port}"


def test_a_name_that_resolves_elsewhere_a_moment_later_is_not_followed(site: Site) -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    web = WebSource(resolve=lambda host, port: next(answers), allowed=only_this_loopback)
    assert web(site.url(host="shop.example")).data == BODY
    assert kind_of(web, site.url("/again", host="shop.example")) == "blocked_address"
    web.close()
    assert len(site.requests) == 1


def test_one_private_address_among_public_ones_is_refused() -> None:
    web = WebSource(resolve=lambda host, port: ["93.184.216.34", "192.168.0.7"])
    assert kind_of(web, "http://shop.example/a.jpg") == "blocked_address"


HOSTILE = [
    "http://127.0.0.1/a.jpg",
    "http://127.1/a.jpg",
    "http://2130706433/a.jpg",
    "http://0x7f000001/a.jpg",
    "http://0177.0.0.1/a.jpg",
    "http://0x7f.0.0.1/a.jpg",
    "http://017700000001/a.jpg",
    "http://0/a.jpg",
    "http://0.0.0.0/a.jpg",
    "http://10.0.0.1/a.jpg",
    "http://172.16.0.1/a.jpg",
    "http://192.168.1.1/a.jpg",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/a.jpg",
    "http://198.18.0.1/a.jpg",
    "http://224.0.0.1/a.jpg",
    "http://255.255.255.255/a.jpg",
    "http://[::1]/a.jpg",
    "http://[::]/a.jpg",
    "http://[::ffff:127.0.0.1]/a.jpg",
    "http://[::ffff:7f00:1]/a.jpg",
    "http://[::ffff:169.254.169.254]/a.jpg",
    "http://[::127.0.0.1]/a.jpg",
    "http://[64:ff9b::7f00:1]/a.jpg",
    "http://[64:ff9b::10.0.0.1]/a.jpg",
    "http://[2002:7f00:1::]/a.jpg",
    "http://[2002:a00:1::1]/a.jpg",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/a.jpg",
    "http://[fc00::1]/a.jpg",
    "http://[fd00:ec2::254]/a.jpg",
    "http://[fe80::1]/a.jpg",
    "http://[fe80::1%25eth0]/a.jpg",
    "http://[ff02::1]/a.jpg",
    "http://[fec0::1]/a.jpg",
    "http://[::ffff:0:127.0.0.1]/a.jpg",
    "http://[64:ff9b:1:7f00:1::808:808]/a.jpg",
    "http://[64:ff9b:1::808:808]/a.jpg",
    "http://[2001:4860:4860::5efe:7f00:1]/a.jpg",
    "http://[2001:4860:4860:0:200:5efe:a00:1]/a.jpg",
    "http://[3fff::1]/a.jpg",
    "http://192.0.0.8/a.jpg",
    "http://0x7f.1/a.jpg",
    "http://127.0.0.1./a.jpg",
    "http://0300.0250.0.1/a.jpg",
    "https://127.0.0.1/a.jpg",
    "HTTP://127.0.0.1:22/a.jpg",
    "http://127.0.0.1#@shop.example/a.jpg",
    "http://127.0.0.1?@shop.example/a.jpg",
    "http://user:pass@shop.example/a.jpg",
    "http://localhost/a.jpg",
    "http://localhost./a.jpg",
    "http://LOCALHOST/a.jpg",
    "http://\uff11\uff12\uff17.0.0.1/a.jpg",
    "http://127\u30020\u30020\u30021/a.jpg",
    "http://\u2460\u2461\u2466.0.0.1/a.jpg",
    "http://user:secret@127.0.0.1/a.jpg",
    "http://shop.example@127.0.0.1/a.jpg",
    "http://127.0.0.1\\@shop.example/a.jpg",
    "http://shop.example\\.evil/a.jpg",
    "http://%31%32%37.0.0.1/a.jpg",
    "http://127.0.0.1\t/a.jpg",
    "http://127.0.0.1\r\nHost: x/a.jpg",
    "http:///127.0.0.1/a.jpg",
    "http://",
    "http://[::1",
    "http://127.0.0.1:99999/a.jpg",
    "ftp://shop.example/a.jpg",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
]


@pytest.mark.parametrize("uri", HOSTILE)
def test_hostile_form_is_refused(uri: str) -> None:
    assert kind_of(WebSource(), uri) == "blocked_address"


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2:{port}/x",
        "//127.0.0.2:{port}/x",
        "http://[::1]:{port}/x",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        "http://user@127.0.0.1:{port}/x",
        "gopher://127.0.0.1:{port}/x",
    ],
)
def test_a_redirect_is_checked_like_any_url(site: Site, target: str) -> None:
    site.answers["/photo.jpg"] = status(302, Location=target.format(port=site.port))
    web = source()
    assert kind_of(web, site.url()) == "blocked_address"
    web.close()
    assert len(site.requests) == 1


def test_redirects_are_followed_and_bounded(site: Site) -> None:
    site.answers["/photo.jpg"] = status(301, Location="/b.jpg")
    site.answers["/loop"] = status(302, Location="/loop")
    web = source(redirects=3)
    assert web(site.url()).data == BODY
    site.requests.clear()
    assert kind_of(web, site.url("/loop")) == "io_error"
    web.close()
    assert len(site.requests) == 4


@pytest.mark.parametrize(
    ("code", "kind", "tries"),
    [
        (404, "not_found", 1),
        (410, "not_found", 1),
        (401, "forbidden", 1),
        (403, "forbidden", 1),
        (429, "throttled", 3),
        (503, "throttled", 3),
        (500, "io_error", 3),
        (504, "timeout", 3),
        (418, "io_error", 1),
    ],
)
def test_answers_are_told_apart_and_passing_ones_tried_again(site: Site, code: int, kind: str, tries: int) -> None:
    site.answers["/photo.jpg"] = status(code)
    web = source(attempts=3)
    assert kind_of(web, site.url()) == kind
    web.close()
    assert len(site.requests) == tries


def throttle(times: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that turns the first requests away."""
    left = [times]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        left[0] -= 1
        (status(429, **headers) if left[0] >= 0 else photo)(handler)

    return answer


def test_retry_after_is_heeded(site: Site) -> None:
    site.answers["/photo.jpg"] = throttle(1, Retry_After="7")
    clock = Clock()
    web = source(clock)
    assert web(site.url()).data == BODY
    web.close()
    assert clock.slept == [pytest.approx(7, abs=0.5)]


def test_retry_after_may_be_a_date(site: Site) -> None:
    site.answers["/photo.jpg"] = throttle(1, Retry_After=formatdate(time.time() + 20, usegmt=True))
    clock = Clock()
    web = source(clock)
    assert web(site.url()).data == BODY
    web.close()
    assert clock.slept == [pytest.approx(20, abs=2)]


@pytest.mark.parametrize("wish", ["999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "-5", "soon", "1e9", ""])
def test_no_retry_after_holds_a_run_for_ever(site: Site, wish: str) -> None:
    site.answers["/photo.jpg"] = throttle(1, Retry_After=wish)
    clock = Clock()
    web = source(clock)
    assert web(site.url()).data == BODY
    web.close()
    assert sum(clock.slept) <= 60


def test_a_pause_that_a_host_asks_for_is_every_threads(site: Site) -> None:
    site.answers["/photo.jpg"] = throttle(1, Retry_After="30")
    clock = Clock()
    web = source(clock, Pace())
    web(site.url())
    host = web._hosts.get("127.0.0.1")
    host.throttled(25.0)
    clock.slept.clear()
    assert web(site.url("/another.jpg")).data == BODY
    web.close()
    assert clock.slept[0] == pytest.approx(25, abs=0.5)


def test_pauses_grow_vary_and_cost_a_photo_none_of_its_time(site: Site) -> None:
    site.answers["/photo.jpg"] = throttle(7)
    clock = Clock()
    web = source(clock, Pace(), total_seconds=5)
    assert web(site.url()).data == BODY  # after far more than 5 s, had they passed
    web.close()
    pauses = [seconds for seconds in clock.slept if seconds > 0.1]
    assert len(pauses) == 7
    for n, seconds in enumerate(pauses, 1):
        assert 0.2 * 2**n < seconds <= min(60, 0.5 * 2**n)
    assert len(set(pauses)) == 7


def test_a_host_that_only_throttles_is_given_up_and_asked_again_after_its_pause(site: Site) -> None:
    site.answers["/photo.jpg"] = status(503, Retry_After="40")
    clock = Clock()
    web = source(clock, Pace(patience=100))
    assert kind_of(web, site.url()) == "throttled"
    assert 3 <= len(site.requests) <= 5
    asked = len(site.requests)
    for n in range(50):
        assert kind_of(web, site.url(f"/{n}.jpg")) == "throttled"
    assert len(site.requests) == asked  # nobody waited, and nobody asked
    clock.sleep(61)
    site.answers.clear()
    assert web(site.url()).data == BODY
    assert web(site.url("/0.jpg")).data == BODY
    web.close()


def test_after_a_host_throttled_requests_keep_a_distance_that_closes_again(site: Site) -> None:
    site.answers["/photo.jpg"] = throttle(3, Retry_After="1")
    clock = Clock()
    web = source(clock, Pace(answers_to_recover=5))
    web(site.url())
    clock.slept.clear()
    for _ in range(5):
        web(site.url("/other.jpg"))
    spaced = sum(clock.slept)
    assert spaced > 0.2
    for _ in range(30):
        web(site.url("/other.jpg"))
    clock.slept.clear()
    for _ in range(10):
        web(site.url("/other.jpg"))
    web.close()
    assert clock.slept == []


def test_head_tells_size_and_mark_without_the_photo(site: Site) -> None:
    web = source()
    assert web.probe(site.url()) == (len(BODY), '"abc"')
    assert site.methods == ["HEAD"]
    assert (len(web(site.url()).data), web(site.url()).etag) == web.probe(site.url())
    web.close()


def test_a_host_that_refuses_head_is_asked_once(site: Site) -> None:
    site.answers["HEAD /photo.jpg"] = status(403)
    web = source()
    assert [web.probe(site.url()) for _ in range(3)] == [(0, "")] * 3
    assert site.methods == ["HEAD"]
    assert web(site.url()).data == BODY
    web.close()


@pytest.mark.parametrize("uri", ["http://169.254.169.254/latest", "http://[::1]/a.jpg", "ftp://shop/a", "http://"])
def test_a_probe_is_checked_like_any_request(uri: str) -> None:
    assert WebSource().probe(uri) == (0, "")


def test_too_large_is_refused_from_the_header_and_from_the_bytes(site: Site) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    site.answers["/endless"] = endless
    web = source(max_bytes=1000)
    assert kind_of(web, site.url()) == "too_large"
    assert kind_of(web, site.url("/endless")) == "too_large"
    web.close()


def test_a_short_body_is_tried_again(site: Site) -> None:
    def cut_once(handler: BaseHTTPRequestHandler) -> None:
        if len(site.requests) > 1:
            return photo(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:100])
        handler.close_connection = True
        return None

    site.answers["/photo.jpg"] = cut_once
    web = source()
    assert web(site.url()).data == BODY
    web.close()


def test_slow_bytes_end_at_the_time_cap(site: Site) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        try:
            for _ in range(200):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    site.answers["/photo.jpg"] = drip
    web = source(total_seconds=0.5, read_seconds=0.3)
    started = time.monotonic()
    assert kind_of(web, site.url()) == "timeout"
    web.close()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_that_drips_its_header_or_its_handshake_ends_at_the_time_cap(scheme: str) -> None:
    """Every byte begins the socket's own time-out anew; only the watch ends this."""
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        answer = b"HTTP/1.1 200 OK\r\nX: " if scheme == "http" else b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"
        with connection, contextlib.suppress(OSError):
            connection.sendall(answer)
            while not over.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        web = source(read_seconds=5, total_seconds=0.5)
        started = time.monotonic()
        assert kind_of(web, f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/a.jpg") == "timeout"
        assert time.monotonic() - started < 4
        over.set()
        thread.join()
        web.close()


def test_a_silent_host_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        web = source(read_seconds=0.2, total_seconds=1, attempts=2)
        assert kind_of(web, f"http://127.0.0.1:{listener.getsockname()[1]}/a.jpg") == "timeout"
        web.close()


def test_a_closed_port_and_a_name_without_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert kind_of(source(attempts=2), f"http://127.0.0.1:{port}/a.jpg") == "io_error"

    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    assert kind_of(WebSource(WebLimits(attempts=1), resolve=unknown), "http://nowhere.example/a.jpg") == "io_error"


def test_connections_are_reused(site: Site) -> None:
    ports: list[int] = []

    def remember(handler: BaseHTTPRequestHandler) -> None:
        ports.append(handler.client_address[1])
        photo(handler)

    site.answers["/photo.jpg"] = remember
    web = source()
    for _ in range(5):
        web(site.url())
    web.close()
    assert len(set(ports)) == 1


def test_one_host_is_asked_a_bounded_number_of_times_at_once(site: Site) -> None:
    state = {"now": 0, "most": 0}
    lock = threading.Lock()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        time.sleep(0.05)
        with lock:
            state["now"] -= 1
        photo(handler)

    site.answers["/photo.jpg"] = slow
    web = source(pace=Pace(at_once=2))
    threads = [threading.Thread(target=web, args=(site.url(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    web.close()
    assert state["most"] == 2


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "2002:5db8:d822::1"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
