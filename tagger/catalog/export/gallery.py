"""A page to look at results: every photo beside its tags, confidences and review flags, in one HTML file.

The page loads nothing: styles, script and photos are inside it, and its content security policy forbids anything
else. Cards are written as they come, so a run of any size needs the memory of one card; browsers stay quick up to a
few thousand.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import IO

import jinja2
from PIL import Image

from tagger.errors import ImageError
from tagger.source.decode import decode

THUMBNAIL_SIDE = 160  # pixels
THUMBNAIL_QUALITY = 80

_REASONS: Mapping[str, str] = {
    "low_confidence": "Low confidence",
    "no_threshold": "Always reviewed",
    "disagreement": "Photos of this item disagree, or the shop's own data does",
    "photo_changed": "The photo changed after a decision",
    "audit": "Audit sample",
    "unfamiliar_photo": "Unlike the photos the bundle was checked on",
}


@dataclass(frozen=True)
class Tag:
    """One attribute of one photo."""

    attribute: str
    attribute_label: str  # for people
    value: str
    value_label: str  # for people
    confidence: float | None  # calibrated probability, 0 to 1; None where there is none, as for a human's tag
    decision: str  # accepted or review
    human: bool = False  # set by a person, not by the model


@dataclass(frozen=True)
class Card:
    """One row of the results; attributes that do not apply are left out of `tags`."""

    item_id: str
    row: int  # 0-based data row of the manifest
    image_uri: str
    thumbnail: bytes | None  # JPEG
    status: str  # ok or failed
    error_kind: str | None = None
    error: str | None = None
    tags: tuple[Tag, ...] = ()
    review_reasons: tuple[str, ...] = ()  # `attribute:reason`, or a reason that is about the whole photo

    @property
    def state(self) -> str:
        """What the page filters by: failed, review or accepted."""
        if self.status == "failed":
            return "failed"
        in_review = self.review_reasons or any(tag.decision == "review" for tag in self.tags)
        return "review" if in_review else "accepted"


@dataclass(frozen=True)
class GallerySummary:
    """What the head of the page says about the run; the cards may be a part of its rows."""

    title: str
    rows: int
    ok: int
    failed: Mapping[str, int]  # error kind → rows
    needs_review: int  # rows
    bundle_name: str
    target_precision: float  # 0 to 1
    note: str = ""  # one or two sentences below the counts

    @property
    def accepted(self) -> int:
        """Rows that need nobody."""
        return max(0, self.ok - self.needs_review)

    @property
    def n_failed(self) -> int:
        return sum(self.failed.values())


def thumbnail(data: bytes, side: int = THUMBNAIL_SIDE) -> bytes | None:
    """A photo as a small JPEG for a `Card`: upright, transparency on white, padded to `side` × `side` pixels.

    Args:
        data: the photo's bytes, in any format that a run reads.
        side: side of the square in pixels.

    Returns:
        The JPEG's bytes, or None where the photo cannot be read.
    """
    try:
        pixels = decode(data, side).pixels
    except ImageError:
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=THUMBNAIL_QUALITY, optimize=True)
    return file.getvalue()


def write_gallery(cards: Iterable[Card], summary: GallerySummary, output: IO[str]) -> int:
    """Write the page, card by card.

    Args:
        cards: in the order of the page; an iterator is read once and never held as a whole.
        summary: counts and names for the head of the page.
        output: a text file for UTF-8.

    Returns:
        The number of cards written.
    """
    written = 0

    def counted() -> Iterator[Card]:
        nonlocal written
        for card in cards:
            written += 1
            yield card

    for piece in _template().generate(summary=summary, cards=counted()):
        output.write(_encodable(piece))
    return written


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["percent"] = _percent
    environment.filters["csp_hash"] = _csp_hash
    environment.filters["reasons"] = _reasons
    environment.filters["share"] = _share
    source = resources.files("tagger.catalog.export") / "gallery.html.j2"
    return environment.from_string(source.read_text("utf-8"))


def _encodable(text: str) -> str:
    """Without what HTML or UTF-8 cannot hold: a manifest may carry NUL or half a surrogate pair."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def _percent(share: float) -> int:
    """Whole percent from 0 to 100; 100 is kept for what is certain, so 0.998 is 99."""
    if not share > 0:  # also NaN
        return 0
    return 100 if share >= 0.9995 else min(99, round(share * 100))


def _share(count: int, total: int) -> float:
    """Percent of a total for a bar's width."""
    return round(100 * min(count, total) / total, 3) if total > 0 else 0.0


def _csp_hash(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode('ascii')}'"


def _reasons(card: Card) -> list[tuple[str, str]]:
    """Reasons for review in words, each with the attributes it is about, comma-separated."""
    labels = {tag.attribute: tag.attribute_label for tag in card.tags}
    grouped: dict[str, list[str]] = {}
    for reason in card.review_reasons:
        attribute, _, code = reason.rpartition(":")
        about = grouped.setdefault(_REASONS.get(code, code.replace("_", " ")), [])
        if attribute:
            about.append(labels.get(attribute, attribute))
    return [(text, ", ".join(about)) for text, about in grouped.items()]
