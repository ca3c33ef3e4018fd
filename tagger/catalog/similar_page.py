"""A page that shows a photo and what is most like it, in one HTML file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import jinja2

from tagger.catalog.export.gallery import thumbnail
from tagger.catalog.likeness import display
from tagger.catalog.similar import Answer
from tagger.errors import ImageError
from tagger.schema import Schema
from tagger.source.fetch import Fetcher
from tagger.source.manifest import resolve_uri

PHOTO_SIDE = 320  # pixels


@dataclass(frozen=True)
class PageText:
    """What stands around the photos."""

    query: str  # what the photo is called
    catalogue: str  # what the catalogue is called
    filters: tuple[str, ...] = ()  # such as 'category: dress'
    notes: tuple[str, ...] = ()  # whole sentences
    language: str = "en"  # of the names of attributes and values


def similar_page(answer: Answer, schema: Schema, photo: bytes, text: PageText, folder: str, fetch: Fetcher) -> str:
    """The page as text for UTF-8.

    Args:
        photo: the query's bytes.
        folder: where relative image paths of the manifest start.
        fetch: gives the photos that were found; one that cannot be had, or has other bytes by now, is left out.
    """
    cards = [
        {
            "item": item,
            "photo": _photo(resolve_uri(folder, item.image_uri), item.image_sha256, fetch),
            "same": [display(schema, name, value, text.language) for name, value in item.likeness.same],
            "differs": [
                (
                    schema.attribute(name).display(text.language),
                    display(schema, name, value, text.language),
                    display(schema, name, wanted, text.language),
                )
                for name, value, wanted in item.likeness.differs
            ],
        }
        for item in answer.found
    ]
    tags = [
        (schema.attribute(name).display(text.language), display(schema, name, value, text.language))
        for name, value in answer.tags.items()
        if value is not None
    ]
    page = _template().render(answer=answer, text=text, photo=thumbnail(photo, PHOTO_SIDE), cards=cards, tags=tags)
    # HTML and UTF-8 hold neither NUL nor half a surrogate pair, a manifest may
    return page.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _photo(uri: str, image_sha256: str, fetch: Fetcher) -> bytes | None:
    try:
        data = fetch(uri).data
    except ImageError:
        return None
    return thumbnail(data, PHOTO_SIDE) if hashlib.sha256(data).hexdigest() == image_sha256 else None


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["csp_hash"] = _csp_hash
    source = resources.files("tagger.catalog") / "similar.html.j2"
    return environment.from_string(source.read_text("utf-8"))


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def _csp_hash(text: str) -> str:
    """How a content security policy names an inline style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode('ascii')}'"
