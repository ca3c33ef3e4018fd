"""Small catalogues for tests of the map: profiles in clear groups, and what the page needs besides."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from tagger.catalog.atlas import FitOptions, Layout, fit_decoder
from tagger.catalog.map.page import LayoutView, PageTexts, Photos, write_map
from tagger.catalog.map.points import Points
from tagger.catalog.map.quality import Reconstruction
from tagger.schema import Schema, parse_schema

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>' </style> {{ 7*7 }} \u2028\u2029 & <!--"

SCHEMA = parse_schema(
    """
name: small
attributes:
  - name: kind
    names: {en: Kind, ko: 종류}
    values: [dress, shirt, hat]
  - name: colour
    values: [red, blue, black]
  - name: sleeve
    applies_to: {kind: [dress, shirt]}
    values: [short, long]
""",
    "small",
)
TEXTS = PageTexts("Spring", "default", 60, 2)


def grouped_points(n: int = 60, schema: Schema = SCHEMA, seed: int = 0) -> Points:
    """`n` items; each has one of nine combinations of kind and colour, sure of it but for some noise."""
    random = np.random.default_rng(seed)
    profile = np.zeros((n, schema.n_scores), np.float32)
    best = np.full((n, len(schema.attributes)), -1, np.int16)
    for item in range(n):
        for column, attribute in enumerate(schema.attributes):
            chosen = item // 3 ** min(column, 1) % len(attribute.values)
            block = random.dirichlet(np.full(len(attribute.values), 0.1)) * 0.1
            block[chosen] += 0.9
            if attribute.parent is not None and best[item, 0] == 2:
                block *= 0.0
                chosen = -1
            profile[item, schema.slices[attribute.name]] = block
            best[item, column] = chosen
    confidence = np.where(best < 0, np.nan, 0.93).astype(np.float32)
    decision = np.where(best < 0, 2, 0).astype(np.int8)
    return Points(
        schema=schema,
        item_ids=[f"{item:03d}" for item in range(n)],
        image_uris=[f"images/{item:03d}.jpg" for item in range(n)],
        image_sha256=["0" * 64] * n,
        profile=profile,
        best=best,
        confidence=confidence,
        decision=decision,
        human=np.zeros(best.shape, bool),
    )


def circle_of(points: Points) -> npt.NDArray[np.float32]:
    """A layout that needs no library: the groups around a circle, their members in a row."""
    group = points.best[:, 0] * 3 + points.best[:, 1]
    angle = group * 2 * np.pi / 9
    radius = 0.6 + 0.4 * np.arange(len(points)) / len(points)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)


def views_of(points: Points) -> list[LayoutView]:
    """Two layouts of `points` with quickly fitted decoders."""
    views = []
    for name, turned in (("neighbours", 1), ("autoencoder", -1)):
        xy = circle_of(points)[:, ::turned].copy()
        decoder = fit_decoder(xy, points.profile, points.schema, FitOptions(hidden=24, steps=150, batch=32))
        layout = Layout(name, xy, decoder, 0.987, Reconstruction(6, 0.21, 0.9, 0.8), 1.0)
        views.append(
            LayoutView(
                name, name.title(), "One sentence.", xy, layout.trustworthiness, layout.reconstruction,
                decoder.layers(), decoder.centre, decoder.scale,
            )
        )  # fmt: skip
    return views


def page_of(points: Points, texts: PageTexts = TEXTS, photos: Photos | None = None) -> str:
    output = io.BytesIO()
    write_map(points, views_of(points), texts, photos or Photos(), output)
    return output.getvalue().decode()
