"""A run over photos of the web: a real HTTP server, and a row for whatever it answers."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from source.test_web import HOSTILE

if TYPE_CHECKING:
    from conftest import Inferred, Shop

SECRET = "S3cR3t"


@dataclass
class Cdn:
    """A server of drawn photos: what it was asked, and how it is to answer."""

    host: str
    asked: list[tuple[str, str]] = field(default_factory=list)  # method, path with its query
    seed: int = 0  # other seeds, other bytes
    head_status: int = 200
    turn_away: int = 0  # so many requests with 429 before the first photo

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.host.rpartition(':')[2]}{path}"

    def photos(self) -> int:
        return sum(method == "GET" for method, _ in self.asked)


def handler_of(cdn: Cdn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, text in headers.items():
                self.send_header(name.replace("_", "-"), text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            cdn.asked.append((self.command, self.path))
            parts = urlsplit(self.path)
            if cdn.turn_away:
                cdn.turn_away -= 1
                self.answer(429, Retry_After="0")
            elif parts.path.startswith("/missing"):
                self.answer(404)
            elif parts.path.startswith("/to"):
                self.answer(302, Location=parse_qs(parts.query)["place"][0])
            elif self.command == "HEAD" and cdn.head_status != 200:
                self.answer(cdn.head_status)
            else:
                buffer = io.BytesIO()
                number = sum(parts.path.encode()) * 7 + cdn.seed * 13
                Image.new("RGB", (40, 30), (number % 256, cdn.seed, 10)).save(buffer, "PNG")
                self.answer(200, buffer.getvalue(), ETag=f'"{number}"')

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def cdn() -> Iterator[Cdn]:
    cdn = Cdn("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(cdn))
    cdn.host = f"127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield cdn
    server.shutdown()
    server.server_close()


def tag(shop: Shop, uris: list[str], **options: Any) -> list[dict[str, Any]]:
    shop.write([(f"p{i}", uri) for i, uri in enumerate(uris)])
    shop.run(**options)
    rows = shop.rows(Path(options["out"]) if "out" in options else None)
    assert [row["row"] for row in rows] == list(range(len(uris)))
    return rows


def kinds(rows: list[dict[str, Any]]) -> list[str]:
    return [row["error_kind"] or "ok" for row in rows]


def test_web_photos_are_tagged_and_their_secrets_masked(shop: Shop, cdn: Cdn) -> None:
    uris = [cdn.url(f"/a.jpg?X-Amz-Signature={SECRET}"), cdn.url("/missing.jpg")]
    rows = tag(shop, uris, allow_private_http=True)
    assert kinds(rows) == ["ok", "not_found"]
    assert rows[0]["image_uri"] == cdn.url("/a.jpg?X-Amz-Signature=***")
    assert (rows[0]["width"], rows[0]["height"]) == (40, 30)


def test_without_the_option_no_web_photo_is_fetched(shop: Shop, cdn: Cdn) -> None:
    assert kinds(tag(shop, [cdn.url("/a.jpg")])) == ["blocked_address"]
    assert cdn.asked == []


def test_the_public_web_alone_does_not_reach_this_machine(shop: Shop, cdn: Cdn) -> None:
    assert kinds(tag(shop, [cdn.url("/a.jpg")], allow_http=True)) == ["blocked_address"]
    assert cdn.asked == []


# -- addresses --------------------------------------------------------------------------------------------------------


class Names:
    """A name server under an attacker's control: each question about a name takes its next answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[str]] = {}
        self.connected: list[str] = []
        resolve, connect = socket.getaddrinfo, socket.socket.connect

        def asked(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
            if host in self.answers:
                answers = self.answers[host]
                host = answers.pop(0) if len(answers) > 1 else answers[0]
            return resolve(host, port, *arguments, **options)

        def connected(one: socket.socket, address: Any) -> None:
            if isinstance(address, tuple):
                self.connected.append(address[0])
                if not address[0].startswith("127."):
                    raise ConnectionRefusedError  # there is no network in a test
            connect(one, address)

        monkeypatch.setattr(socket, "getaddrinfo", asked)
        monkeypatch.setattr(socket.socket, "connect", connected)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


def test_every_hostile_form_has_its_row_and_nothing_is_connected_to(
    shop: Shop, cdn: Cdn, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(HOSTILE) >= 60
    rows = tag(shop, HOSTILE, allow_http=True, root=shop.folder)
    expected = ["outside_root" if uri.startswith("file:") else "blocked_address" for uri in HOSTILE]
    assert dict(zip(HOSTILE, kinds(rows), strict=True)) == dict(zip(HOSTILE, expected, strict=True))
    assert (names.connected, cdn.asked) == ([], [])


def test_names_that_resolve_to_this_machine_are_refused(shop: Shop, cdn: Cdn, names: Names) -> None:
    inside = ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00:ec2::254", "64:ff9b::a00:1"]
    for n, address in enumerate(inside):
        names.answers[f"{n}.evil.example"] = [address]
    rows = tag(shop, [cdn.url("/a.jpg", f"{n}.evil.example") for n in range(len(inside))], allow_http=True)
    assert kinds(rows) == ["blocked_address"] * len(inside)
    assert (names.connected, cdn.asked) == ([], [])


def test_a_name_that_changes_between_check_and_connect_gains_nothing(
    shop: Shop, cdn: Cdn, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagger.source.web.random.uniform", lambda low, high: 0.0)  # the waits between attempts
    names.answers["rebind.example"] = ["93.184.216.34", "127.0.0.1"]  # public when checked, this machine ever after
    (row,) = tag(shop, [cdn.url("/a.jpg", "rebind.example")], allow_http=True)
    assert row["error_kind"] == "blocked_address"  # the second attempt asked again, and was told the truth
    assert names.connected == ["93.184.216.34"]
    assert cdn.asked == []


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.2:{port}/x.jpg",
        "http://[::1]:{port}/x.jpg",
        "http://2130706434:{port}/x.jpg",
        "//0x7f000002:{port}/x.jpg",
        "http://169.254.169.254/latest/meta-data/iam/",
        "http://inside.example:{port}/x.jpg",
        "http://user:pass@public.example:{port}/x.jpg",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://public.example/x.jpg",
        "data:image/png;base64,aGVsbG8=",
    ],
)
def test_a_redirect_to_a_place_that_is_refused_is_a_row(
    shop: Shop, cdn: Cdn, names: Names, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.1 plays the public internet here; all other addresses are what they are."""
    import tagger.source.web as module

    is_public = module.is_public
    monkeypatch.setattr(
        module.WebSource.__init__,
        "__defaults__",
        tuple(
            (lambda address: str(address) == "127.0.0.1" or is_public(address)) if default is is_public else default
            for default in module.WebSource.__init__.__defaults__ or ()
        ),
    )
    names.answers |= {"public.example": ["127.0.0.1"], "inside.example": ["10.1.2.3"]}
    place = place.format(port=cdn.host.rpartition(":")[2])
    uris = [cdn.url(f"/to?place={place}", "public.example"), cdn.url("/good.jpg", "public.example")]
    assert kinds(tag(shop, uris, allow_http=True)) == ["blocked_address", "ok"]
    assert set(names.connected) == {"127.0.0.1"}
    assert [path.partition("?")[0] for _, path in sorted(cdn.asked)] == ["/good.jpg", "/to"]


# -- politeness -------------------------------------------------------------------------------------------------------


def test_a_host_that_throttles_for_a_while_costs_no_row(shop: Shop, cdn: Cdn) -> None:
    cdn.turn_away = 4
    assert kinds(tag(shop, [cdn.url(f"/{n}.png") for n in range(6)], allow_private_http=True)) == ["ok"] * 6
    assert len(cdn.asked) == 10


# -- signed URLs that change every night ------------------------------------------------------------------------------


def signed(cdn: Cdn, night: int, photos: int = 5) -> list[str]:
    query = f"X-Amz-Date=2026013{night}T000000Z&X-Amz-Signature={SECRET}{night}&X-Amz-Credential=AKIA{night}"
    return [cdn.url(f"/photo-{n}.png?v=1&{query}") for n in range(photos)]


def test_signatures_that_change_every_night_infer_nothing_again(shop: Shop, cdn: Cdn, inferred: Inferred) -> None:
    tag(shop, signed(cdn, 0), out=shop.folder / "monday", allow_private_http=True)
    inferred.clear()
    cdn.asked.clear()
    rows = tag(shop, signed(cdn, 1), out=shop.folder / "tuesday", reuse=shop.folder / "monday", allow_private_http=True)
    assert kinds(rows) == ["ok"] * 5
    assert inferred.photos == 0
    assert cdn.photos() == 5  # the bytes were read again: they are what is compared
    assert [row["image_uri"] for row in rows] == [row["image_uri"] for row in shop.rows(shop.folder / "monday")]


@pytest.mark.parametrize(("head_status", "fetched", "heads"), [(200, 0, 5), (403, 5, 1), (405, 5, 1)])
def test_by_metadata_an_unchanged_photo_of_another_signature_is_not_even_fetched(
    shop: Shop, cdn: Cdn, inferred: Inferred, head_status: int, fetched: int, heads: int
) -> None:
    tag(shop, signed(cdn, 0), out=shop.folder / "monday", allow_private_http=True)
    inferred.clear()
    cdn.asked.clear()
    cdn.head_status = head_status
    again = {"reuse": shop.folder / "monday", "reuse_check": "metadata", "allow_private_http": True, "workers": 1}
    assert kinds(tag(shop, signed(cdn, 1), out=shop.folder / "tuesday", **again)) == ["ok"] * 5
    assert inferred.photos == 0
    assert (cdn.photos(), len(cdn.asked) - cdn.photos()) == (fetched, heads)


def test_by_metadata_a_changed_photo_under_the_same_path_is_inferred(shop: Shop, cdn: Cdn, inferred: Inferred) -> None:
    tag(shop, signed(cdn, 0), out=shop.folder / "monday", allow_private_http=True)
    inferred.clear()
    cdn.seed = 3
    again = {"reuse": shop.folder / "monday", "reuse_check": "metadata", "allow_private_http": True}
    tag(shop, signed(cdn, 1), out=shop.folder / "tuesday", **again)
    assert inferred.photos == 5


# -- secrets ----------------------------------------------------------------------------------------------------------


def files_with(secret: str, folder: Path) -> list[str]:
    """Files below `folder` whose bytes hold the secret; Parquet is looked at cell by cell."""
    import pyarrow.parquet as pq

    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            text = json.dumps(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text()
            if secret in text:
                found.append(path.name)
    return found


SECRET_URLS: list[Callable[[Cdn], str]] = [
    lambda cdn: cdn.url(f"/a.png?X-Amz-Signature={SECRET}"),
    lambda cdn: cdn.url(f"/missing.png?sig={SECRET}"),
    lambda cdn: f"http://user:{SECRET}@shop.example/a.jpg",
    lambda cdn: f"http://{SECRET}@127.0.0.1:99999/a.jpg",
    lambda cdn: f"http://shop\\.example/a?token={SECRET}",
    lambda cdn: f"ftp://anna:{SECRET}@shop.example/a.jpg",
    lambda cdn: cdn.url(f"/to?place=http://x:{SECRET}@127.0.0.1/y.jpg"),
    lambda cdn: f"http://[::1?access_token={SECRET}",
]


@pytest.mark.parametrize("debug", [False, True])
def test_no_secret_of_a_url_is_in_any_file_or_on_the_screen(shop: Shop, cdn: Cdn, debug: bool) -> None:
    uris = [make(cdn) for make in SECRET_URLS]
    shop.write([(f"p{i}", uri) for i, uri in enumerate(uris)])
    arguments = ["--out", shop.out, "--bundle", shop.bundle, "--device", "cpu", "--max-failed", "0"]
    process = shop.start(
        *(["--debug"] if debug else []), "run", shop.manifest, *arguments, "--keep", "image_uri", "--allow-private-http"
    )
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 3, stderr
    assert ("Traceback" in stderr) is debug
    assert SECRET not in stdout + stderr
    assert files_with(SECRET, shop.out) == []
    assert len(shop.rows()) == len(uris)
