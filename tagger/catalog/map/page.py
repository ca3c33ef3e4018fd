"""The map as one HTML file: styles, script, data and small photos are inside, and its policy forbids the network.

The data travels as one gzip stream in base64: a header in JSON, then arrays. Nothing of it is ever markup, since the
script puts texts into the page as text only. At 100,000 items that is some megabytes. Beyond `thumbnails` photos the
page links to those that lie on the local file system.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import IO, Any

import jinja2
import numpy as np
import numpy.typing as npt

from tagger.catalog.map.points import Floats, Points, weight
from tagger.catalog.map.quality import Reconstruction
from tagger.schema import Attribute, Schema

SCRIPTS = ("data.js", "draw.js", "panel.js", "main.js")
NO_CONFIDENCE = 255
HUMAN_BIT = 4


@dataclass(frozen=True)
class LayoutView:
    """One way to lay the items out, as the page needs it."""

    name: str
    label: str
    about: str  # one sentence for people
    xy: Floats  # (n, 2)
    trustworthiness: float
    reconstruction: Reconstruction
    layers: Sequence[tuple[Floats, Floats]]  # of the decoder: weight (out, in), bias (out,)
    centre: Floats  # (2,)
    scale: float


@dataclass(frozen=True)
class PageTexts:
    """What the page says of itself."""

    title: str
    bundle_name: str
    items: int
    without_photo: int  # items of the run that have no photo which could be read
    language: str = "en"
    heat: str = ""  # heat map to begin with: density, ATTRIBUTE=VALUE, or empty
    colour: str = ""  # attribute that colours the points to begin with; empty: the first


@dataclass(frozen=True)
class Photos:
    """Photos for the page."""

    thumbnails: Mapping[int, bytes] = field(default_factory=dict)  # item number → JPEG
    links: Sequence[str] = ()  # relative links, empty where there is none; () for none at all


def write_map(
    points: Points, layouts: Sequence[LayoutView], texts: PageTexts, photos: Photos, output: IO[bytes]
) -> None:
    """Write the page as UTF-8; the first of `layouts` is shown first."""
    page = _template().render(
        texts=texts,
        layouts=layouts,
        style=_resource("map.css"),
        script='(() => {\n"use strict";\n' + "\n".join(_resource(name) for name in SCRIPTS) + "\n})();\n",
        data=pack(*map_data(points, layouts, texts, photos)),
        photos=_pack_photos(photos.thumbnails),
        parents=[a.display(texts.language) for a in points.schema.attributes if points.schema.dependants(a.name)],
    )
    output.write(page.replace("\0", "\ufffd").encode("utf-8", "replace"))


def map_data(
    points: Points, layouts: Sequence[LayoutView], texts: PageTexts, photos: Photos
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """(header, arrays) of the page's data."""
    percent = np.where(np.isnan(points.confidence), NO_CONFIDENCE, np.floor(points.confidence * 100 + 0.5))
    certain = (points.confidence < 0.9995) & (percent == 100)  # 100 % is kept for what is certain
    arrays: dict[str, npt.NDArray[Any]] = {
        "profile": np.rint(np.sqrt(points.profile) * 255).astype(np.uint8),  # p = (byte / 255)²
        "best": points.best.astype(np.int16),
        "confidence": np.where(certain, 99, percent).astype(np.uint8),
        "flags": (points.decision + HUMAN_BIT * points.human).astype(np.uint8),
    }
    described = []
    for number, layout in enumerate(layouts):
        arrays[f"xy{number}"] = layout.xy.astype(np.float32)
        for depth, (weights, bias) in enumerate(layout.layers):
            arrays[f"weight{number}.{depth}"] = weights.astype(np.float32)
            arrays[f"bias{number}.{depth}"] = bias.astype(np.float32)
        described.append(
            {
                "label": layout.label,
                "about": layout.about,
                "layers": [list(weights.shape) for weights, _ in layout.layers],
                "centre": [float(value) for value in layout.centre],
                "scale": layout.scale,
            }
        )
    header = {
        "items": len(points),
        "attributes": _attributes(points.schema, texts.language),
        "layouts": described,
        "heat": texts.heat,
        "colour": texts.colour,
        "ids": list(points.item_ids),
        "uris": list(points.image_uris),
        "links": list(photos.links),
    }
    return header, arrays


def _attributes(schema: Schema, language: str) -> list[dict[str, Any]]:
    number = {attribute.name: i for i, attribute in enumerate(schema.attributes)}

    def applies_to(attribute: Attribute) -> dict[str, Any] | None:
        if attribute.parent is None:
            return None
        values = [schema.by_name[attribute.parent].index(value) for value in attribute.parent_values]
        return {"attribute": number[attribute.parent], "values": values}

    return [
        {
            "name": attribute.name,
            "label": attribute.display(language),
            "values": [{"name": value.name, "label": value.display(language)} for value in attribute.values],
            "start": schema.slices[attribute.name].start,
            "weight": weight(attribute, schema),
            "appliesTo": applies_to(attribute),
        }
        for attribute in schema.attributes
    ]


def pack(header: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Base64 of a gzip stream: header length (uint32), header, arrays; each array begins at a multiple of eight."""
    places, position = {}, 0
    for name, array in arrays.items():
        places[name] = {"at": position, "type": array.dtype.name, "length": int(array.size)}
        position += -(-array.nbytes // 8) * 8
    text = json.dumps(header | {"arrays": places}, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    text += b" " * (-(len(text) + 4) % 8)
    pieces = [struct.pack("<I", len(text)), text]
    for array in arrays.values():
        raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        pieces += [raw, b"\0" * (-len(raw) % 8)]
    return base64.b64encode(gzip.compress(b"".join(pieces), 6, mtime=0)).decode("ascii")


def _pack_photos(thumbnails: Mapping[int, bytes]) -> str:
    """The same form; the JPEGs as one array, cut at `ends`."""
    items = sorted(thumbnails)
    ends = np.cumsum([len(thumbnails[item]) for item in items], dtype=np.int64).astype(np.int32)
    joined = np.frombuffer(b"".join(thumbnails[item] for item in items), np.uint8)
    return pack({"items": items}, {"ends": ends, "jpeg": joined})


@cache
def _resource(name: str) -> str:
    return (resources.files("tagger.catalog.map") / name).read_text("utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["csp_hash"] = _csp_hash
    return environment.from_string(_resource("map.html.j2"))


def _csp_hash(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
