"""A proxy in front of an S3 server that drops, breaks, delays and refuses what a test tells it to, and counts.

    with FaultProxy(server.endpoint, plan) as proxy:
        ...  # the server, by way of proxy.endpoint
        proxy.requests

`plan` is asked once for every request and returns what is done to it; None lets it pass. The proxy speaks HTTP/1.1 with
Content-Length on both sides, which is all that S3 clients of this project use.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit


class Request(NamedTuple):
    """What a plan may look at."""

    number: int  # from 0, in the order in which the requests came
    method: str
    path: str  # with the query


@dataclass(frozen=True)
class Fault:
    """What is done to one request. The fields may be combined."""

    status: int = 0  # answer this, without asking the server
    code: str = ""  # S3's word for it
    drop: bool = False  # close the connection without asking the server
    lose: bool = False  # ask the server, and close the connection without telling its answer
    cut_at: float = 1.0  # reset the connection after this share of the body
    declare: int = 0  # bytes by which the declared length is wrong
    slow: float = 0.0  # seconds between two single bytes of the body
    latency: float = 0.0  # seconds before the request is passed on


Plan = Callable[[Request], Fault | None]


class FaultProxy:
    """Listens on a port of 127.0.0.1 while its block lasts."""

    def __init__(self, upstream: str, plan: Plan = lambda request: None) -> None:
        self.plan = plan
        self.log: list[tuple[str, str]] = []  # (method, path) of every request
        self.connections = 0  # that were made in all
        self._upstream = urlsplit(upstream).netloc
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def requests(self) -> int:
        """How many requests came."""
        return len(self.log)

    def __enter__(self) -> FaultProxy:
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the one that accepts
        self._listener.close()
        self._acceptor.join(10)
        with self._lock:
            for connection in self._open:
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
                self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        upstream = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            with connection.makefile("rb") as stream:
                while self._one(connection, stream, upstream):
                    pass
        except (OSError, http.client.HTTPException, ValueError):
            pass  # one side went away
        finally:
            upstream.close()
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _one(self, connection: socket.socket, stream: object, upstream: http.client.HTTPConnection) -> bool:
        """Pass one request on; whether the connection may carry another one."""
        line = stream.readline().decode("latin-1").split()  # type: ignore[attr-defined]
        if len(line) != 3:
            return False
        method, path, _ = line
        headers = http.client.parse_headers(stream)  # type: ignore[arg-type]
        if headers.get("Expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            del headers["Expect"]
        body = stream.read(int(headers.get("Content-Length", 0)))  # type: ignore[attr-defined]
        with self._lock:
            number = len(self.log)
            self.log.append((method, path))
        fault = self.plan(Request(number, method, path)) or Fault()
        if fault.latency:
            time.sleep(fault.latency)
        if fault.drop:
            return False
        if fault.status:
            _refuse(connection, fault, method)
            return True
        upstream.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, text in headers.items():
            upstream.putheader(name, text)
        upstream.endheaders(body)
        with upstream.getresponse() as response:
            answer = response.read()
            if fault.lose:
                return False
            return _tell(connection, response, answer, fault, method)


def _refuse(connection: socket.socket, fault: Fault, method: str) -> None:
    text = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
    head = f"HTTP/1.1 {fault.status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n\r\n"
    connection.sendall(head.encode() + (b"" if method == "HEAD" else text))


def _tell(
    connection: socket.socket, response: http.client.HTTPResponse, answer: bytes, fault: Fault, method: str
) -> bool:
    """Give the server's answer to the client, less what the fault takes of it."""
    declared = response.getheader("Content-Length") if method == "HEAD" else str(len(answer) + fault.declare)
    lines = [f"HTTP/1.1 {response.status} {response.reason}", f"Content-Length: {declared or 0}"]
    hidden = ("content-length", "transfer-encoding", "connection")
    lines += [f"{name}: {text}" for name, text in response.getheaders() if name.lower() not in hidden]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    if fault.cut_at < 1:
        connection.sendall(answer[: int(len(answer) * fault.cut_at)])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        return False
    if fault.slow:
        for i in range(len(answer)):
            connection.sendall(answer[i : i + 1])
            time.sleep(fault.slow)
        return True
    connection.sendall(answer)
    return not fault.declare


class BadWeather:
    """A plan: some requests dropped, some throttled, and one burst in which all are.

    The burst begins with the first request after `burst_at` photos were asked for and goes by.
    """

    def __init__(
        self,
        drop: float = 0.0,
        throttle: float = 0.0,
        burst_at: int | None = None,
        burst_seconds: float = 0.0,
        latency: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._drop, self._throttle, self._latency = drop, throttle, latency
        self._burst_at, self._burst_seconds = burst_at, burst_seconds
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._photos: set[str] = set()
        self.burst_began: float | None = None
        self.in_burst = 0  # requests that came while all were refused

    def __call__(self, request: Request) -> Fault | None:
        with self._lock:
            if request.method == "GET" and request.path.endswith((".jpg", ".png")):
                self._photos.add(request.path)
            if self.burst_began is None and self._burst_at is not None and len(self._photos) > self._burst_at:
                self.burst_began = time.monotonic()
            if self.burst_began is not None and time.monotonic() < self.burst_began + self._burst_seconds:
                self.in_burst += 1
                return Fault(status=503, code="SlowDown")
            draw = self._chance.random()
        if draw < self._drop:
            return Fault(drop=True, latency=self._latency)
        if draw < self._drop + self._throttle:
            return Fault(status=503, code="SlowDown", latency=self._latency)
        return Fault(latency=self._latency) if self._latency else None
