"""The page of similar products in a real browser: nothing sticks out of a narrow window, every photo is drawn."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from catalog.gallery_page import Page, jpeg
from fakes import DictFetcher
from services.environments import run_outside

from tagger.catalog.likeness import Difference, Likeness
from tagger.catalog.similar import Answer, FoundItem, World
from tagger.catalog.similar_page import PageText, similar_page
from tagger.schema import Schema

DRIVER = """<script>
addEventListener("load", () => {
  const shown = [...document.images].filter(image => image.complete && image.naturalWidth > 0).length;
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.dataset.seen = `${shown} photos, ${wide} too wide, ${document.querySelectorAll(".chip").length} chips`;
});
</script>"""


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window(apparel: Schema, tmp_path: Path, width: int) -> None:
    text = page(apparel)
    assert "</body>" in text
    driven = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", DRIVER + "</body>")
    (tmp_path / "page.html").write_text(driven, "utf-8")
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"),
        *(f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom", (tmp_path / "page.html").as_uri()),
    ]
    (body,) = Page(run_outside("chromium", *options, timeout=120)).all("body")
    assert body["data-seen"] == "5 photos, 0 too wide, 8 chips"


def page(schema: Schema) -> str:
    """Four products with long names, one of them a single word."""
    photo = jpeg()
    sha256 = hashlib.sha256(photo).hexdigest()
    likeness = Likeness((("category", "longsleeve"),), (Difference("bottom_style", "slacks", "w" * 90),))
    found = tuple(FoundItem("0123456789" * 8, row, f"{row}.jpg", sha256, 0.5, {}, likeness) for row in range(4))
    answer = Answer(found, "blend", {"category": "longsleeve", "colour": "x" * 90}, World(0.9, 0.2))
    text = PageText("q" * 120, "catalogue", ("Category: " + "y" * 90,), ("A note " + "z" * 90,))
    fetch = DictFetcher({f"photos/{row}.jpg": photo for row in range(4)})
    return similar_page(answer, schema, photo, text, "photos", fetch)
