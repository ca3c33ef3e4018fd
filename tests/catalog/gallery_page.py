"""Cards to make a page of, and what to read a page with."""

from __future__ import annotations

import io
from html.parser import HTMLParser

from PIL import Image

from tagger.catalog.export.gallery import Card, GallerySummary, Tag, write_gallery

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>' </style> {{ 7*7 }} \u2028\u2029 & <!--"

SUMMARY = GallerySummary(
    title="Spring",
    rows=4,
    ok=3,
    failed={"truncated": 1},
    needs_review=1,
    bundle_name="default",
    target_precision=0.95,
    note="A note.",
)


def jpeg(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (60, 80), orientation: int = 1) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, colour).save(file, "JPEG", exif=exif)
    return file.getvalue()


def tag(
    attribute: str, value: str, confidence: float | None = 0.97, decision: str = "accepted", human: bool = False
) -> Tag:
    return Tag(attribute, attribute.title(), value, value.title(), confidence, decision, human)


CARDS = (
    Card("001", 0, "images/1.jpg", jpeg(), "ok", tags=(tag("category", "dress"), tag("colour", "red"))),
    Card(
        "002",
        1,
        "images/2.jpg",
        jpeg(),
        "ok",
        tags=(tag("category", "shirt"), tag("colour", "blue", 0.61, "review")),
        review_reasons=("colour:low_confidence", "unfamiliar_photo"),
    ),
    Card("003", 2, "images/3.jpg", None, "failed", "truncated", "the JPEG ends before its pixels do"),
    Card("004", 3, "images/4.jpg", jpeg(), "ok", tags=(tag("category", "skirt", None, human=True),)),
)


class Page(HTMLParser):
    """Every element with its attributes, and the text by the class or id that it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data)

    def all(self, tag: str, css_class: str = "") -> list[dict[str, str | None]]:
        return [a for name, a in self.elements if name == tag and css_class in [*(a.get("class") or "").split(), ""]]


def page_of(*cards: Card, summary: GallerySummary = SUMMARY) -> str:
    output = io.StringIO()
    assert write_gallery(iter(cards), summary, output) == len(cards)
    return output.getvalue()
