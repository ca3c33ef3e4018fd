from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from catalog.gallery_page import Page, jpeg
from catalog.map_items import HOSTILE, SCHEMA, TEXTS, circle_of, grouped_points, page_of
from PIL import Image

from tagger.catalog.map.page import Photos
from tagger.catalog.map.picture import PictureOptions, draw_map, value_colours
from tagger.catalog.map.points import Choice, parse_choice
from tagger.schema import Schema, parse_schema


def unpacked(text: str, block: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    found = re.search(f'id="{block}">([^<]*)</script>', text)
    assert found is not None
    data = gzip.decompress(base64.b64decode(found[1]))
    (length,) = struct.unpack("<I", data[:4])
    header = json.loads(data[4 : 4 + length])
    arrays = {
        name: np.frombuffer(data, place["type"], place["length"], 4 + length + place["at"])
        for name, place in header["arrays"].items()
    }
    return header, arrays


def test_the_page_carries_every_item_with_its_tags_and_profile() -> None:
    points = grouped_points(60)
    header, arrays = unpacked(page_of(points), "data")
    assert header["ids"] == list(points.item_ids)
    assert header["uris"] == list(points.image_uris)
    assert arrays["best"].reshape(60, 3).tolist() == points.best.tolist()
    np.testing.assert_allclose((arrays["profile"].reshape(60, -1) / 255.0) ** 2, points.profile, atol=0.005)
    np.testing.assert_array_equal(arrays["xy0"].reshape(60, 2), circle_of(points))
    assert header["layouts"][0]["layers"] == [[24, 2], [24, 24], [8, 24]]
    assert [a["weight"] for a in header["attributes"]] == [2.0, 1.0, 1.0]
    assert header["attributes"][2]["appliesTo"] == {"attribute": 0, "values": [0, 1]}


def test_only_certainty_is_100_percent_and_a_missing_confidence_is_none() -> None:
    points = grouped_points(10)
    confidence = points.confidence.copy()
    confidence[:4, 0] = [1.0, 0.998, np.nan, 0.614]
    human = points.human.copy()
    human[2, 0] = True
    _, arrays = unpacked(page_of(replace(points, confidence=confidence, human=human)), "data")
    assert arrays["confidence"].reshape(10, 3)[:4, 0].tolist() == [100, 99, 255, 61]
    assert arrays["flags"].reshape(10, 3)[:4, 0].tolist() == [0, 0, 4, 0]


def test_photos_travel_inside_the_page() -> None:
    photos = Photos({7: jpeg((1, 2, 3)), 2: jpeg((9, 9, 9), (30, 40))}, ["../a.jpg"] * 60)
    text = page_of(grouped_points(60), photos=photos)
    header, arrays = unpacked(text, "pictures")
    assert header["items"] == [2, 7]
    first, second = np.split(arrays["jpeg"], [arrays["ends"][0]])
    assert first.tobytes() == photos.thumbnails[2]
    assert second.tobytes() == photos.thumbnails[7]
    assert unpacked(text, "data")[0]["links"][3] == "../a.jpg"


def test_nothing_hostile_becomes_markup() -> None:
    points = grouped_points(20, hostile_schema())
    points = replace(points, item_ids=[HOSTILE] * 20, image_uris=[HOSTILE] * 20)
    text = page_of(points, replace(TEXTS, title=HOSTILE, bundle_name=HOSTILE), Photos(links=[HOSTILE] * 20))
    page, calm = Page(text), Page(page_of(grouped_points(20)))
    assert [name for name, _ in page.elements] == [name for name, _ in calm.elements]
    assert len(re.findall("<script", text)) == len(re.findall("</script", text)) == 3
    assert "alert(1)</script" not in text
    for _, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes)
    header, _ = unpacked(text, "data")
    assert header["ids"][0] == HOSTILE


def hostile_schema() -> Schema:
    """The small schema with display names that are markup."""
    first = json.dumps("</script><script>alert(1)</script><img src=x onerror=alert(2)>")
    return parse_schema(
        f"name: h\nattributes:\n"
        f"  - {{name: kind, names: {{en: {first}}}, values: [{{name: a, names: {{en: {first}}}}}, b, c]}}\n"
        f"  - {{name: colour, values: [red, blue, black]}}\n"
        f"  - {{name: sleeve, applies_to: {{kind: [a, b]}}, values: [short, long]}}\n",
        "h",
    )


def test_the_page_loads_nothing_and_its_policy_names_its_own_script_and_style() -> None:
    text = page_of(grouped_points(20))
    page = Page(text)
    for _, attributes in page.elements:
        assert not {"src", "href", "srcset", "action", "style"} & set(attributes)
    policy = next(a["content"] for name, a in page.elements if name == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src 'self' data: blob: file:;")
    assert "unsafe" not in policy
    assert "http:" not in policy
    for element in ("script", "style"):
        body = re.search(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_says_how_good_its_layouts_are() -> None:
    texts = Page(page_of(grouped_points(20))).texts
    assert {"0.987", "90.0%", "80.0%", "0.210"} <= {text.strip() for text in texts}


@pytest.mark.parametrize("heat", [None, Choice(None), parse_choice("colour=red", SCHEMA)])
def test_a_picture_of_the_map(heat: Choice | None) -> None:
    points, file = grouped_points(60), io.BytesIO()
    draw_map(points, circle_of(points), PictureOptions("A title", SCHEMA.attribute("colour"), heat), file)
    picture = Image.open(file).convert("RGB")
    assert picture.size == (1600, 1200)
    colours = {colour for _, colour in picture.getcolors(1 << 21) or []}
    red_and_blue = value_colours(SCHEMA.attribute("colour"))[:2]  # black is the ink over a heat map, too
    shown = {tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for code in red_and_blue}
    assert (heat is None) == any(max(abs(a - b) for a, b in zip(c, s, strict=True)) < 6 for c in colours for s in shown)


def test_colours_have_their_own_colour() -> None:
    red, blue, black = value_colours(SCHEMA.attribute("colour"))
    assert (red, blue, black) == ("#c93a35", "#4c86d9", "#1f2023")
    assert len(set(value_colours(SCHEMA.attribute("kind")))) == 3
