import base64
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from catalog.gallery_page import CARDS, HOSTILE, SUMMARY, Page, jpeg, page_of, tag
from PIL import Image

from tagger.catalog.export.gallery import Card, Tag, thumbnail, write_gallery


def test_a_card_shows_its_tags_confidences_and_reasons() -> None:
    page = Page(page_of(*CARDS))
    assert [a["data-state"] for a in page.all("li", "card")] == ["accepted", "review", "failed", "accepted"]
    tags = [(a["data-attribute"], a["data-value"], a["class"]) for a in page.all("div", "tag")]
    assert tags == [
        ("category", "dress", "tag"),
        ("colour", "red", "tag"),
        ("category", "shirt", "tag"),
        ("colour", "blue", "tag review"),
        ("category", "skirt", "tag"),
    ]
    for text in (
        "97%",
        "61%",
        "Low confidence",
        ": Colour",
        "set by a person",
        "truncated",
        "the JPEG ends before its pixels do",
    ):
        assert text in page.texts, text
    assert "Unlike the photos the bundle was checked on" in page.texts
    bars = [a["width"] for a in page.all("rect") if a.get("height") == "4"]
    assert bars == ["97", "97", "97", "61"]  # none for the tag that a person set


def test_the_head_counts_the_run_and_not_the_cards() -> None:
    summary = replace(SUMMARY, rows=12_000, ok=11_990, failed={"truncated": 3, "not_found": 7}, needs_review=1_990)
    texts = Page(page_of(*CARDS, summary=summary)).texts
    for text in ("12,000", "10,000", "1,990", "10"):
        assert text in texts
    assert "Failed: truncated 3, not_found 7" in " ".join(" ".join(texts).split())


def test_nothing_from_the_manifest_becomes_markup() -> None:
    hostile = Card(
        HOSTILE,
        0,
        HOSTILE,
        None,
        "failed",
        HOSTILE,
        HOSTILE,
        (Tag(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 0.5, "review"),),
        (f"{HOSTILE}:low_confidence", HOSTILE),
    )
    summary = replace(SUMMARY, title=HOSTILE, bundle_name=HOSTILE, note=HOSTILE, failed={HOSTILE: 1})
    text = page_of(hostile, replace(hostile, status="ok", thumbnail=jpeg()), summary=summary)
    page = Page(text)
    calm = Page(
        page_of(
            *(
                replace(c, tags=(tag("a", "b", 0.5, "review"),), review_reasons=("a:x", "b"))
                for c in (CARDS[2], CARDS[0])
            ),
            summary=replace(SUMMARY, failed={"x": 1}),
        )
    )
    assert [name for name, _ in page.elements] == [name for name, _ in calm.elements]
    assert len(re.findall("<script", text)) == 1
    assert len(re.findall("</script", text)) == 1
    for name, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), name
    assert page.texts.count(HOSTILE) >= 8  # escaped, and all there
    assert page.all("div", "tag")[0]["data-value"] == HOSTILE
    assert page.all("img")[0]["alt"] == f"Photo of item {HOSTILE}"


def test_text_that_utf8_cannot_hold_does_not_stop_the_page(tmp_path: Path) -> None:
    with open(tmp_path / "page.html", "w", encoding="utf-8") as output:
        write_gallery([Card("half \ud83d and \0 nul", 0, "", None, "failed", "no_image", "")], SUMMARY, output)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "half ? and \ufffd nul" in text


def test_the_page_loads_nothing_and_its_policy_names_its_own_script_and_style() -> None:
    text = page_of(*CARDS)
    page = Page(text)
    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attributes.get(key) or "data:").startswith("data:")
    assert "url(" not in text
    assert "@import" not in text
    policy = next(a["content"] for name, a in page.elements if name == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for element in ("script", "style"):
        body = re.search(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in page.elements)  # the policy would drop them


def test_cards_are_written_as_they_come() -> None:
    output = io.StringIO()
    seen: list[int] = []

    def cards() -> Iterator[Card]:
        for i in range(50):
            seen.append(output.getvalue().count('<li class="card"'))
            yield replace(CARDS[0], item_id=f"{i:03d}", row=i)

    assert write_gallery(cards(), SUMMARY, output) == 50
    assert seen[10] >= 8
    assert seen[49] >= 47


@pytest.mark.parametrize(
    ("confidence", "shown"), [(1.0, 100), (0.9996, 100), (0.998, 99), (0.9951, 99), (0.004, 0), (float("nan"), 0)]
)
def test_only_certainty_is_shown_as_100_percent(confidence: float, shown: int) -> None:
    page = page_of(replace(CARDS[0], tags=(tag("category", "dress", confidence),)))
    assert f">{shown}%<" in page


def test_a_thumbnail_is_a_small_upright_jpeg_on_white() -> None:
    data = thumbnail(jpeg((20, 40, 200), (400, 200), orientation=6))  # stored lying, shown standing
    assert data is not None
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size, image.mode) == ("JPEG", (160, 160), "RGB")
    pixels = np.asarray(image).astype(int)
    assert np.abs(pixels[80, 80] - (20, 40, 200)).max() < 12
    assert pixels[80, 10].min() > 245
    assert pixels[80, 150].min() > 245
    assert np.abs(pixels[6, 80] - (20, 40, 200)).max() < 12


def test_a_transparent_photo_gets_a_white_ground() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (50, 50), (255, 0, 0, 0)).save(file, "PNG")
    data = thumbnail(file.getvalue(), side=40)
    assert data is not None
    image = Image.open(io.BytesIO(data))
    assert image.size == (40, 40)
    assert np.asarray(image).min() > 245


@pytest.mark.parametrize("data", [b"", b"no photo", jpeg(size=(300, 300))[:700]])
def test_a_photo_that_cannot_be_read_has_no_thumbnail(data: bytes) -> None:
    assert thumbnail(data) is None
