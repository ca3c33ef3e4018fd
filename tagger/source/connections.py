"""Connections to hosts that may mean ill: to one address, kept for reuse, and cut off when their photo's time is over.

A time-out of a socket begins anew with every byte, so that a host that sends one byte now and then, in a header or in
the middle of a TLS handshake, could hold a thread for hours. A `Watch` knows until when every thread may wait, and
shuts the connection of one that is late, wherever in the exchange it is.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

POOLS_KEPT = 32  # one per host and checked address
SECONDS_BETWEEN_LOOKS = 0.25


class Watch:
    """Shuts the connections of threads that are late."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deadlines: dict[int, float] = {}  # thread → until when, by the monotonic clock
        self._under_way: dict[int, socket.socket] = {}  # thread → the connection that it waits for
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """Whatever this thread asks for in the block ends soon after `deadline`, with an error of its connection."""
        me = threading.get_ident()
        with self._lock:
            self._deadlines[me] = deadline
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_again_and_again, name="web-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._deadlines.pop(me, None)
                self._under_way.pop(me, None)

    def waits_for(self, connection: socket.socket) -> None:
        """This thread waits for `connection` from now on."""
        with self._lock:
            self._under_way[threading.get_ident()] = connection

    def _look_again_and_again(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            now = time.monotonic()
            with self._lock:
                for thread, connection in self._under_way.items():
                    if now > self._deadlines.get(thread, now):
                        with contextlib.suppress(OSError):
                            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the thread that looks."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()


class _Watched:
    """What both kinds of urllib3's connections have in common here.

    The second handle on the socket is what the watch shuts: the first is given from hand to hand in a TLS handshake.
    """

    watch: Watch
    _twin: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        self._twin = connection.dup()
        self.watch.waits_for(self._twin)
        return connection

    def request(self, *arguments: Any, **options: Any) -> None:
        if self._twin is not None:
            self.watch.waits_for(self._twin)
        super().request(*arguments, **options)  # type: ignore[misc]

    def close(self) -> None:
        super().close()  # type: ignore[misc]
        if self._twin is not None:
            self._twin.close()
            self._twin = None


class WatchedHTTP(_Watched, HTTPConnection):
    """http://"""


class WatchedHTTPS(_Watched, HTTPSConnection):
    """https://"""


class Pools:
    """Connections to checked addresses, kept for reuse. Threads may ask at once."""

    def __init__(self, per_host: int) -> None:
        self.watch = Watch()
        self._per_host = per_host
        self._lock = threading.Lock()
        self._pools: OrderedDict[tuple[str, str, int, str], urllib3.HTTPConnectionPool] = OrderedDict()
        watch = {"watch": self.watch}
        self._http = type("WatchedHTTP", (WatchedHTTP,), dict(watch))
        self._https = type("WatchedHTTPS", (WatchedHTTPS,), dict(watch))

    def get(self, scheme: str, host: str, port: int, address: str) -> urllib3.HTTPConnectionPool:
        """Connections to `address`, with the name `host` for TLS."""
        key = (scheme, host, port, address)
        with self._lock:
            pool = self._pools.get(key)
            if pool is not None:
                self._pools.move_to_end(key)
                return pool
            if scheme == "https":
                pool = urllib3.HTTPSConnectionPool(
                    address,
                    port,
                    maxsize=self._per_host,
                    cert_reqs="CERT_REQUIRED",
                    server_hostname=host,
                    assert_hostname=host,
                )
                pool.ConnectionCls = self._https
            else:
                pool = urllib3.HTTPConnectionPool(address, port, maxsize=self._per_host)
                pool.ConnectionCls = self._http
            self._pools[key] = pool
            if len(self._pools) > POOLS_KEPT:
                self._pools.popitem(last=False)[1].close()
        return pool

    def close(self) -> None:
        """Close all connections."""
        self.watch.close()
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()
