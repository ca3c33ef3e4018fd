"""The report of an evaluation: report.json for machines, report.md for both, report.html for people.

The page loads nothing: its plots are SVG drawn from the figures here, its thumbnails are inside it, and its content
security policy forbids anything else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import NamedTuple

import jinja2
import numpy as np
from PIL import Image

from tagger import __version__, storage
from tagger.errors import ImageError
from tagger.schema import Attribute, Schema
from tagger.source.decode import decode
from tagger.source.fetch import Fetcher
from tagger.training.data import LabelledPhotos
from tagger.training.evaluate import Evaluation, Figures, Mistake, as_data

THUMBNAIL_SIDE = 132  # pixels
THUMBNAIL_QUALITY = 72
HEAT_STEPS = 10  # shades of the confusion matrix


@dataclass(frozen=True)
class ReportHead:
    """What was evaluated."""

    bundle_name: str
    bundle_id: str
    calibration_id: str
    target: str  # key of the target precision, for example '0.95'
    splits: tuple[str, ...]  # of the evaluated rows, without '' for files that have none
    thresholds: Mapping[str, float | None]  # attribute → least accepted confidence; None: always reviewed
    vetoed: Mapping[str, tuple[str, ...]]  # attribute → values that are always reviewed
    failed: int  # photos that could not be read and are left out
    failures: tuple[Mapping[str, str], ...]  # item_id, image_uri and error of the first of them
    unchecked: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # ^ attribute → kinds of photos on which it was never validated and is always reviewed


def write_report(
    head: ReportHead, evaluation: Evaluation, photos: LabelledPhotos, fetch: Fetcher, folder: str
) -> Figures:
    """Write report.json, report.md and report.html into `folder`; returns what stands in report.json.

    Args:
        photos: the evaluated rows, to which the mistakes' row numbers refer.
        fetch: where the mistakes' photos come from; one that cannot be read is shown as an empty frame.
    """
    data = report_data(head, evaluation, photos)
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    thumbnails = [_thumbnail(fetch, photos.uris[mistake.row]) for mistake in evaluation.mistakes]
    storage.write_bytes(storage.join(folder, "report.json"), text.encode("utf-8", "replace"))
    storage.write_bytes(storage.join(folder, "report.md"), markdown(data, photos.schema).encode("utf-8", "replace"))
    page = html(data, evaluation.mistakes, thumbnails, photos)
    storage.write_bytes(storage.join(folder, "report.html"), page.encode("utf-8", "replace"))
    return data


def report_data(head: ReportHead, evaluation: Evaluation, photos: LabelledPhotos) -> Figures:
    """report.json: what was evaluated and every figure; shares are from 0 to 1, None stands where there are no rows."""
    bundle = {"name": head.bundle_name, "bundle_id": head.bundle_id, "calibration_id": head.calibration_id}
    return {
        "tagger": __version__,
        "bundle": bundle,
        "target_precision": head.target,
        "splits": list(head.splits),
        "photos": len(photos),
        "failed": head.failed,
        "failures": [dict(failure) for failure in head.failures],
        "thresholds": dict(head.thresholds),
        "vetoed": {name: list(values) for name, values in head.vetoed.items()},
        "unchecked": {name: list(kinds) for name, kinds in head.unchecked.items()},
        **as_data(evaluation, photos),
    }


# ------------------------------------------------------------------------------------------------------- Markdown


def markdown(data: Figures, schema: Schema) -> str:
    """report.json as Markdown tables."""
    bundle = data["bundle"]
    lines = [
        f"# How right is {_plain(bundle['name'])}?",
        "",
        f"Bundle {bundle['bundle_id']}, calibration {bundle['calibration_id']}, target precision "
        f"{data['target_precision']}. {_scope(data)}",
    ]
    for source, figures in data["sources"].items():
        pooled, whole = figures["pooled"], figures["all_right"]
        lines += [
            "",
            f"## {_plain(source)}",
            "",
            f"{figures['photos']:,} photos in {figures['groups']:,} groups. Mean right share "
            f"{percent(figures['mean_right'])}; accepted {percent(pooled['accepted'])} of the labelled tags with "
            f"precision {percent(pooled['precision'])}; every labelled attribute right on {percent(whole['right'])} of "
            f"the photos ({span(whole['low'], whole['high'])}).",
            *_gate_lines(figures["gate"]),
            "",
            "| attribute | right | 95 % interval | strict | n | groups | majority | macro-F1 | ECE excess | "
            "confidence − accuracy | accepted | precision |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for attribute in schema.attributes:
            cell = figures["attributes"].get(attribute.name)
            if cell is None:
                continue
            calibration = data["attributes"][attribute.name][source].get("calibration", {})
            shown = [percent(cell["right"]), span(cell["low"], cell["high"]), percent(cell["strict"]), str(cell["n"])]
            shown += [str(cell["groups"]), percent(cell["majority"]), percent(cell["macro_f1"])]
            shown += [points(calibration.get("ece_excess")), points(calibration.get("gap"))]
            shown += [percent(cell["accepted"]), percent(cell["precision"])]
            lines.append(f"| {attribute.name} | {' | '.join(shown)} |")
        lines += _auroc_lines(data["attributes"], source)
        if whole["without"]:
            lines += ["", "| without | all right | accepted | precision |", "|---|---|---|---|"]
            for name, left in whole["without"].items():
                rest = pooled["without"].get(name, {})
                shown = [percent(left["right"]), percent(rest.get("accepted")), percent(rest.get("precision"))]
                lines.append(f"| {name} | {' | '.join(shown)} |")
    if data["transfer"]:
        lines += ["", "## Thresholds of one source on another", ""]
        lines += [
            "| fitted on | tested on | unfamiliar | accepted | precision | without the gate: accepted | precision |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        for entry in data["transfer"]:
            shown = [_plain(entry["fitted_on"]), _plain(entry["tested_on"]), percent(entry["unfamiliar"])]
            shown += [percent(entry[way][name]) for way in ("pooled", "open") for name in ("accepted", "precision")]
            lines.append(f"| {' | '.join(shown)} |")
    always = [name for name, threshold in data["thresholds"].items() if threshold is None]
    if always:
        lines += ["", f"Always reviewed at this target: {', '.join(always)}."]
    for name, kinds in data["unchecked"].items():
        lines += ["", f"{name} is reviewed on photos like those of {', '.join(map(_plain, kinds))}."]
    return "\n".join(lines) + "\n"


def _gate_lines(gate: Figures | None) -> list[str]:
    """What the gate makes of a source's photos."""
    if gate is None:
        return []
    kinds = ", ".join(f"{percent(share)} {_plain(kind)}" for kind, share in gate["kinds"].items())
    unfamiliar = gate["unfamiliar"]
    return [
        "",
        f"Unlike the photos that the bundle was checked on: {percent(unfamiliar['share'])} "
        f"({span(unfamiliar['low'], unfamiliar['high'])}). Kinds they are taken for: {kinds}.",
    ]


def _auroc_lines(attributes: Figures, source: str) -> list[str]:
    """How well confidence tells rare values and photos that nobody could name."""
    lines = []
    for name, by_source in attributes.items():
        found = by_source.get(source, {})
        for key, what in (("auroc", "{value}"), ("unlabelled", "the {n} photos without a label, by low confidence")):
            figures = found.get(key)
            if figures and figures["auroc"] is not None:
                interval = f"{figures['low']:.3f}–{figures['high']:.3f}"
                lines += ["", f"{name}: AUROC of {what.format(**figures)} {figures['auroc']:.3f} ({interval})."]
    return lines


def _scope(data: Figures) -> str:
    rows = f"{data['photos']:,} labelled photos"
    rows += f" of the split {' and '.join(data['splits'])}" if data["splits"] else ""
    return rows + (f"; {data['failed']:,} more could not be read." if data["failed"] else ".")


def _plain(text: str) -> str:
    """A name that a table's or a line's own signs cannot break."""
    return " ".join(text.replace("|", "/").split())


def percent(share: float | None) -> str:
    """0.8478 → 84.8 %; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def span(low: float | None, high: float | None) -> str:
    """An interval in percent: 81.5–88.9."""
    return "–" if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f}"


def points(share: float | None) -> str:
    """A difference in percentage points with its sign: +1.2."""
    return "–" if share is None else f"{100 * share:+.1f}".replace("-", "−")


# ----------------------------------------------------------------------------------------------------------- page


class Trace(NamedTuple):
    """One source's line in a plot; `points` are (x, y), each from 0 to 1 of its axis."""

    source: int
    points: tuple[tuple[float, float], ...]


class Cell(NamedTuple):
    """One cell of a confusion matrix."""

    photos: int
    heat: int  # 0 to `HEAT_STEPS`: share of the row
    truth: str
    predicted: str


@dataclass(frozen=True)
class Shown:
    """A mistake and its thumbnail."""

    mistake: Mistake
    item_id: str
    value: str  # for people
    label: str
    thumbnail: bytes | None


@dataclass(frozen=True)
class AttributeView:
    """Everything the page shows of one attribute."""

    name: str
    label: str
    cells: dict[str, Figures]  # source → figures
    curves: dict[str, Figures]
    threshold: float | None
    vetoed: tuple[str, ...]
    reliability: tuple[Trace, ...]
    risk: tuple[Trace, ...]
    risk_top: float  # share at the upper end of the risk axis
    columns: tuple[str, ...]  # of the confusion matrix
    matrix: tuple[tuple[str, tuple[Cell, ...]], ...]
    mistakes: tuple[Shown, ...]


def html(data: Figures, mistakes: Sequence[Mistake], thumbnails: Sequence[bytes | None], photos: LabelledPhotos) -> str:
    """The page; `thumbnails` are the mistakes' JPEGs in their order."""
    sources = list(data["sources"])
    views = []
    for attribute in photos.schema.attributes:
        if not data["attributes"][attribute.name]:
            continue
        shown = tuple(
            _shown(mistake, thumbnail, attribute, photos)
            for mistake, thumbnail in zip(mistakes, thumbnails, strict=True)
            if mistake.attribute == attribute.name
        )
        views.append(_view(attribute, data, sources, shown))
    cells = [cell for view in views for cell in view.cells.values()]
    floor = min((min(cell["low"], cell["majority"]) for cell in cells), default=0.0)
    return _template().render(
        data=data,
        scope=_scope(data),
        sources=sources,
        views=views,
        labels={attribute.name: attribute.display() for attribute in photos.schema.attributes},
        axis_from=_axis_from(floor),
        target=float(data["target_precision"]),
    )


def _axis_from(least: float) -> int:
    """Where the axis of right shares begins, in percent: at a tick, and low enough for the least share shown."""
    step = 20 if least < 0.4 else 10
    return min(90, max(0, math.floor(100 * least / step) * step))  # an axis of no length where all is right


def _view(attribute: Attribute, data: Figures, sources: Sequence[str], shown: tuple[Shown, ...]) -> AttributeView:
    curves = data["attributes"][attribute.name]
    risks = [
        Trace(sources.index(source), tuple((c, r) for c, r in found["risk_coverage"]["points"]))
        for source, found in curves.items()
        if "risk_coverage" in found
    ]
    top = max((risk for trace in risks for _, risk in trace.points), default=0.0)
    top = min(1.0, max(0.1, math.ceil(top * 10) / 10))
    columns, matrix = _matrix(attribute, [found["confusion"] for found in curves.values()])
    return AttributeView(
        name=attribute.name,
        label=attribute.display(),
        cells={s: f["attributes"][attribute.name] for s, f in data["sources"].items() if s in curves},
        curves=curves,
        threshold=data["thresholds"].get(attribute.name),
        vetoed=tuple(_display(attribute, value) for value in data["vetoed"].get(attribute.name, ())),
        reliability=tuple(
            Trace(sources.index(source), tuple((b["confidence"], b["accuracy"]) for b in found["calibration"]["bins"]))
            for source, found in curves.items()
            if "calibration" in found
        ),
        risk=tuple(Trace(t.source, tuple((c, r / top) for c, r in t.points)) for t in risks),
        risk_top=top,
        columns=columns,
        matrix=matrix,
        mistakes=shown,
    )


def _matrix(
    attribute: Attribute, counts: Sequence[list[list[int]]]
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[Cell, ...]], ...]]:
    """Columns and rows of the confusion matrix of all sources together; values that never occur are left out."""
    total = np.sum(np.array(counts, dtype=np.int64), axis=0)
    names = [*(value.display() for value in attribute.values), "no tag"]
    n_values = len(attribute.values)
    there = [i for i in range(n_values) if total[i].sum() or total[:, i].sum()]
    columns = [*there, n_values] if total[:, n_values].any() else there
    rows = []
    for i in there:
        n = max(1, int(total[i].sum()))
        cells = [Cell(int(total[i, j]), _heat(int(total[i, j]) / n), names[i], names[j]) for j in columns]
        rows.append((names[i], tuple(cells)))
    return tuple(names[j] for j in columns), tuple(rows)


def _heat(share: float) -> int:
    return 0 if not share else max(1, round(share * HEAT_STEPS))


def _shown(mistake: Mistake, thumbnail: bytes | None, attribute: Attribute, photos: LabelledPhotos) -> Shown:
    label = " or ".join(_display(attribute, value) for value in mistake.label.split(" or "))
    return Shown(mistake, photos.item_ids[mistake.row], _display(attribute, mistake.value), label, thumbnail)


def _display(attribute: Attribute, value: str) -> str:
    """A value's name for people; a text that is no value stays as it is."""
    return attribute.values[attribute.index(value)].display() if value in attribute.value_names else value


def _thumbnail(fetch: Fetcher, uri: str) -> bytes | None:
    try:
        pixels = decode(fetch(uri).data, THUMBNAIL_SIDE).pixels
    except ImageError:
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=THUMBNAIL_QUALITY, optimize=True)
    return file.getvalue()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    environment.filters["points"] = points
    environment.filters["csp_hash"] = _csp_hash
    environment.filters["data_uri"] = _data_uri
    environment.globals["span"] = span
    source = resources.files("tagger.training") / "report.html.j2"
    return environment.from_string(source.read_text("utf-8"))


def _data_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def _csp_hash(text: str) -> str:
    """How a content security policy names an inline style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode('ascii')}'"
