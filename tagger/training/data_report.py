"""The data report of a training: what was kept of the labels, what was dropped, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from tagger import storage
from tagger.source.fetch import mask_uri
from tagger.training.data import SPLITS, LabelledPhotos
from tagger.training.prepare import Prepared, summary_lines
from tagger.training.sources import source_names

FORMAT = 1
LISTED = 1000  # photos, decisions and conflicts of a kind that are listed; all are counted
JSON_NAME, MARKDOWN_NAME = "data_report.json", "data_report.md"

Report = dict[str, Any]


def data_report(prepared: Prepared, min_count: int) -> Report:
    """All figures of the data report as plain data, as data_report.json holds them."""
    names = source_names(prepared.rows.sources)
    report: Report = {
        "format": FORMAT,
        "schema": prepared.rows.schema.name,
        "min_count": min_count,
        "values": {
            "before": prepared.rows.schema.n_scores,
            "kept": prepared.photos.schema.n_scores,
        },
        "sources": _sources(prepared, names),
        "attributes": _attributes(prepared, names),
        "masked": {name: dict(values) for name, values in prepared.reading.masked.items()},
        "other_columns": {names.get(f, f): list(columns) for f, columns in prepared.reading.other_columns.items()},
        "unreadable": _some([{"photo": mask_uri(uri), "error": error} for uri, error in prepared.pack.failures]),
        "train_rows_without_label": len(prepared.no_label),
        "val_photos_in_train": _some([mask_uri(prepared.photos.uris[i]) for i in prepared.repeated]),
        "conflicts": _some(
            [
                {"attribute": c.attribute, "item_ids": [prepared.photos.item_ids[row] for row in c.rows]}
                for c in prepared.conflicts
            ]
        ),
        "decisions": None,
    }
    if prepared.corrections is not None:
        report["decisions"] = {
            "applied": {name: dict(counts) for name, counts in sorted(prepared.corrections.applied.items())},
            "joined_train": prepared.corrections.joined,
            "left_aside": {why: _some(tags) for why, tags in prepared.corrections.left.items()},
        }
    return report


def _some(entries: list[Any]) -> dict[str, Any]:
    return {"count": len(entries), "first": entries[:LISTED]}


def _sources(prepared: Prepared, names: dict[str, str]) -> list[dict[str, Any]]:
    """Rows, photos in use and groups of every labels file."""
    rows = prepared.rows
    used = list(zip(prepared.photos.sources, prepared.photos.splits, prepared.pack.opened.tolist(), strict=True))
    sources = []
    for file in dict.fromkeys(rows.sources):
        of_file = [i for i, source in enumerate(rows.sources) if source == file]
        splits = {split: [i for i in of_file if rows.splits[i] == split] for split in (*SPLITS, "")}
        sources.append(
            {
                "source": names[file],
                "file": mask_uri(file),
                "rows": {split or "none": len(positions) for split, positions in splits.items()},
                "groups": {split or "none": len({rows.groups[i] for i in at}) for split, at in splits.items()},
                "photos_used": {split: used.count((file, split, True)) for split in ("train", "val")},
            }
        )
    return sources


def _attributes(prepared: Prepared, names: dict[str, str]) -> dict[str, Any]:
    """attribute → whether it is kept, and per value whether, why not, and its rows by split and source."""
    trimmed, unlearned = prepared.trimmed, prepared.unlearned
    before = _labels_before_trimming(prepared)
    attributes = {}
    for attribute in before.schema.attributes:
        dropped = trimmed.dropped.get(attribute.name, {})
        counts = _counts(before, attribute.name, names)
        attributes[attribute.name] = {
            "kept": attribute.name not in trimmed.attributes,
            "reason": trimmed.attributes.get(attribute.name) or unlearned.get(attribute.name),
            "unknown_rows": counts.pop(""),
            "masked_rows": {
                split: _known(before, attribute.name, split) - _known(prepared.photos, attribute.name, split)
                for split in ("train", "val")
            },
            "values": {
                value: {"kept": value not in dropped, "reason": dropped.get(value), "rows": counts[value]}
                for value in attribute.value_names
            },
        }
    return attributes


def _known(photos: LabelledPhotos, attribute: str, split: str) -> int:
    """Rows of `split` with a label of the attribute; 0 where the schema lacks it."""
    if attribute not in photos.schema.by_name:
        return 0
    return int(photos.in_split(split).allowed[:, photos.schema.slices[attribute]].any(axis=1).sum())


def _labels_before_trimming(prepared: Prepared) -> LabelledPhotos:
    """Rows in use with all values of the schema, and those of test, whose labels are counted and no more."""
    used = prepared.untrimmed
    test = prepared.rows.in_split("test")
    return LabelledPhotos(
        used.schema,
        used.uris + test.uris,
        used.item_ids + test.item_ids,
        used.sources + test.sources,
        used.splits + test.splits,
        np.concatenate([used.allowed, test.allowed]),
        used.groups + test.groups,
    )


def _counts(photos: LabelledPhotos, attribute: str, names: dict[str, str]) -> dict[str, Any]:
    """value → split → source → (rows labelled with it alone, rows with a partial label that allows it); '' unknown."""
    label = photos.allowed[:, photos.schema.slices[attribute]]
    n_values = label.sum(axis=1)
    splits, sources = np.array(photos.splits), np.array(photos.sources)
    counts: dict[str, Any] = {value: {} for value in photos.schema.by_name[attribute].value_names}
    counts[""] = {}
    for split in SPLITS:
        in_split = splits == split
        counts[""][split] = int((in_split & (n_values == 0)).sum())
        for source in dict.fromkeys(photos.sources):
            rows = in_split & (sources == source)
            single, partial = label[rows & (n_values == 1)].sum(axis=0), label[rows & (n_values > 1)].sum(axis=0)
            for index, value in enumerate(photos.schema.by_name[attribute].value_names):
                if single[index] or partial[index]:
                    entry = {"single": int(single[index]), "partial": int(partial[index])}
                    counts[value].setdefault(split, {})[names[source]] = entry
    return counts


# -------------------------------------------------------------------------------------------------------- Markdown


def report_markdown(report: Report, lines: list[str]) -> str:
    """The report for a person; `lines` are the things that may surprise."""
    values = report["values"]
    head = [
        "# What the labels gave",
        "",
        f"Schema {report['schema']}: {values['kept']} of {values['before']} values are learned"
        + (f"; a value needs {report['min_count']} photos of train." if report["min_count"] else "."),
        "",
        "| source | rows train | val | test | no split | photos used train | val | groups train | val | test |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for source in report["sources"]:
        rows, groups, used = source["rows"], source["groups"], source["photos_used"]
        cells = [rows["train"], rows["val"], rows["test"], rows["none"], used["train"], used["val"]]
        cells += [groups["train"], groups["val"], groups["test"]]
        head.append(f"| {_cell(source['source'])} | {' | '.join(f'{n:,}' for n in cells)} |")
    notes = ["", "## What to know", "", *(f"- {_cell(line)}" for line in lines)] if lines else []
    return "\n".join([*head, *notes, *_corrections(report), *_values(report), ""])


def _corrections(report: Report) -> Iterator[str]:
    decisions = report["decisions"]
    if not decisions:
        return
    yield from ("", "## Decisions of people", "", "| attribute | set | rejected | not applicable | overruled a file |")
    yield "|---|---|---|---|---|"
    for name, counts in decisions["applied"].items():
        cells = [counts.get(key, 0) for key in ("set", "reject", "not_applicable", "overruled")]
        yield f"| {name} | {' | '.join(f'{n:,}' for n in cells)} |"


def _values(report: Report) -> Iterator[str]:
    yield from ("", "## Values", "", "Rows labelled with the value alone, and in brackets those of partial labels.")
    for name, attribute in report["attributes"].items():
        yield from ("", f"### {name}", "")
        if attribute["reason"]:
            yield from (f"{'Kept' if attribute['kept'] else 'Dropped'}: {_cell(attribute['reason'])}.", "")
        yield from ("| value | train | val | test | |", "|---|---|---|---|---|")
        for value, entry in attribute["values"].items():
            cells = [_total(entry["rows"].get(split, {})) for split in SPLITS]
            note = "" if entry["kept"] else f"dropped: {_cell(entry['reason'])}"
            yield f"| {_cell(value)} | {' | '.join(cells)} | {note} |"
        if any(attribute["masked_rows"].values()):
            masked = [f"{attribute['masked_rows'][split]:,}" for split in ("train", "val")]
            yield f"| *labelled, and unknown now* | {' | '.join(masked)} | | |"
        unknown = [f"{attribute['unknown_rows'][split]:,}" for split in SPLITS]
        yield f"| *unknown* | {' | '.join(unknown)} | |"


def _total(by_source: dict[str, dict[str, int]]) -> str:
    single, partial = (sum(entry[kind] for entry in by_source.values()) for kind in ("single", "partial"))
    return f"{single:,} ({partial:,})" if partial else f"{single:,}"


def _cell(text: str) -> str:
    """`text` inside a table or a list: what a labels file holds must not become markup."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(escaped.split())


def write_data_report(prepared: Prepared, min_count: int, folder: str) -> Report:
    """Write data_report.json and data_report.md into `folder`; returns what stands in the first."""
    report = data_report(prepared, min_count)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    storage.write_bytes(storage.join(folder, JSON_NAME), text.encode("utf-8", "replace"))
    markdown = report_markdown(report, summary_lines(prepared))
    storage.write_bytes(storage.join(folder, MARKDOWN_NAME), markdown.encode("utf-8", "replace"))
    return report
