"""A toy schema, labels written down row by row, and a small drawn catalogue with weights to start from."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tagger.schema import Schema, load_schema, schema_from_dict
from tagger.training.data import LabelledPhotos

BACKBONE = "test_efficientnet"  # timm's own, made for tests: 0.36 M parameters
CATALOGUE_ITEMS = 40

Label = Callable[..., LabelledPhotos]


@pytest.fixture(scope="session")
def toy() -> Schema:
    """`kind` (top, trousers, shoes), `sleeve` (short, long) of tops, and `tone` (dark, light) of anything."""
    data = {
        "name": "toy",
        "attributes": [
            {"name": "kind", "values": ["top", "trousers", "shoes"]},
            {"name": "sleeve", "values": ["short", "long"], "applies_to": {"kind": ["top"]}},
            {"name": "tone", "values": ["dark", "light"]},
        ],
    }
    return schema_from_dict(data, "toy")


@pytest.fixture(scope="session")
def label(toy: Schema) -> Label:
    """`label(["top,short,dark", ",,light"], groups=…)` → `LabelledPhotos`; `a|b` and empty cells as in a file."""

    def make(
        rows: Sequence[str],
        groups: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
    ) -> LabelledPhotos:
        allowed = np.zeros((len(rows), toy.n_scores), dtype=bool)
        for number, row in enumerate(rows):
            for attribute, cell in zip(toy.attributes, row.split(","), strict=True):
                for value in filter(None, cell.split("|")):
                    allowed[number, toy.slices[attribute.name].start + attribute.index(value)] = True
        ids = tuple(f"item-{number}" for number in range(len(rows)))
        return LabelledPhotos(
            schema=toy,
            uris=tuple(f"/photos/{item_id}.jpg" for item_id in ids),
            item_ids=ids,
            sources=tuple(sources or ["shop/labels.csv"] * len(rows)),
            splits=tuple(splits or [""] * len(rows)),
            allowed=allowed,
            groups=tuple(groups or ids),
        )

    return make


@pytest.fixture(scope="session")
def say(toy: Schema) -> Callable[[Sequence[Mapping[str, float]]], npt.NDArray[np.float32]]:
    """`say([{"top": 0.9, "short": 0.7, "dark": 0.6}])` → logits whose softmax gives these values these
    probabilities; the rest is shared by the attribute's other values."""

    def make(rows: Sequence[Mapping[str, float]]) -> npt.NDArray[np.float32]:
        logits = np.zeros((len(rows), toy.n_scores))
        for number, row in enumerate(rows):
            for attribute in toy.attributes:
                chosen = [value for value in attribute.value_names if value in row]
                left = (1 - sum(row[value] for value in chosen)) / max(1, len(attribute.values) - len(chosen))
                for index, value in enumerate(attribute.value_names):
                    probability = row.get(value, left if chosen else 1 / len(attribute.values))
                    logits[number, toy.slices[attribute.name].start + index] = np.log(max(probability, 1e-9))
        return logits.astype(np.float32)

    return make


# ------------------------------------------------------------------------------------------------- drawn photos


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn catalogue of 40 products with labels.csv of the shipped schema. For reading only."""
    from tagger.demo import draw_catalogue

    folder = tmp_path_factory.mktemp("catalogue")
    draw_catalogue(str(folder), items=CATALOGUE_ITEMS, seed=3)
    return folder


def read_rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def write_rows(file: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    with open(file, "w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, str]]]:
    return read_rows


@pytest.fixture(scope="session")
def write_labels() -> Callable[[Path, Sequence[Mapping[str, str]]], Path]:
    return write_rows


_TOPS = {"blouse": "blouse", "shirt": "shirt", "t-shirt": "t-shirt", "polo": "t-shirt", "top": "blouse|t-shirt"}
_PATTERNS = {"graphic": "lettering", "plain": "none", "stripe": "stripe", "floral": "flower"}
_NECKS = {"round": "round", "v-neck": "v-neck", "collar": "collar"}
_BOTTOMS = {"slacks": "slacks", "jeans": "jeans", "chinos": "normal", "other": "etc"}
_LENGTHS = {"mini": "short", "knee": "medium", "midi": "seven-tenths", "full": "full"}


@pytest.fixture(scope="session")
def womens_labels(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn catalogue in the words of womens-32: garments that it does not know have empty cells."""
    tops = set(load_schema("apparel").by_name["sleeve_length"].parent_values)
    rows = []
    for row in read_rows(catalogue / "labels.csv"):
        top, bottom = row["category"] in tops, row["category"] in ("pants", "skirt")
        rows.append(
            {
                "item_id": row["item_id"],
                "image": str(catalogue / row["image"]),
                "split": row["split"],
                "garment": "top" if top else "bottom" if bottom else "",
                "top_type": _TOPS.get(row["category"], ""),
                "pattern": _PATTERNS.get(row["pattern"], "") if top else "",
                "neck_detail": _NECKS.get(row["neckline"], ""),
                "sleeve_length": row["sleeve_length"] if top else "",
                "bottom_class": {"pants": "trousers", "skirt": "skirt"}.get(row["category"], ""),
                "bottom_type": _BOTTOMS.get(row["bottom_style"], "") if bottom else "",
                "length": _LENGTHS.get(row["length"], "") if bottom else "",
            }
        )
    return write_rows(tmp_path_factory.mktemp("womens") / "labels.csv", rows)


@pytest.fixture(scope="session")
def start_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A safetensors file with a backbone's random weights."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / f"{BACKBONE}.safetensors"
    save_file(timm.create_model(BACKBONE, num_classes=0).state_dict(), file)
    return file
