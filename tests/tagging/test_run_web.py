"""A run over photos of the web: a real HTTP server, and a row for whatever it answers."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from PIL import Image

from tagger.model.bundle import save_dummy_bundle
from tagger.schema import load_schema
from tagger.tagging.run import RunOptions, run_tagging


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), (200, 10, 10)).save(buffer, "JPEG")
        self.send_response(200)
        self.send_header("Content-Length", str(len(buffer.getvalue())))
        self.end_headers()
        self.wfile.write(buffer.getvalue())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def tag(folder: Path, uris: list[str], **options: bool) -> list[dict[str, object]]:
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "image_uri"])
        writer.writerows((f"p{i}", uri) for i, uri in enumerate(uris))
    save_dummy_bundle(load_schema("apparel"), str(folder / "bundle"))
    out = str(folder / "out")
    run_tagging(
        RunOptions(str(manifest), out=out, bundle=str(folder / "bundle"), max_failed=1.0, **options),
        threading.Event(),
    )
    rows: list[dict[str, object]] = ds.dataset(f"{out}/tags").to_table().to_pylist()
    return rows


def test_web_photos_are_tagged_and_their_secrets_masked(tmp_path: Path, shop: str) -> None:
    rows = tag(tmp_path, [f"{shop}/a.jpg?X-Amz-Signature=secret", f"{shop}/missing.jpg"], allow_private_http=True)
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert rows[0]["image_uri"] == f"{shop}/a.jpg?X-Amz-Signature=***"
    assert (rows[0]["width"], rows[0]["height"]) == (40, 30)
    assert rows[1]["error_kind"] == "not_found"


def test_without_the_option_no_web_photo_is_fetched(tmp_path: Path, shop: str) -> None:
    (row,) = tag(tmp_path, [f"{shop}/a.jpg"])
    assert (row["status"], row["error_kind"]) == ("failed", "blocked_address")


def test_the_public_web_alone_does_not_reach_this_machine(tmp_path: Path, shop: str) -> None:
    (row,) = tag(tmp_path, [f"{shop}/a.jpg"], allow_http=True)
    assert (row["status"], row["error_kind"]) == ("failed", "blocked_address")
