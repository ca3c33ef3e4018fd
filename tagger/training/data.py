"""Labels files and the photos behind them, packed for training.

A labels file is a manifest with one column per attribute and optionally `split`. An empty cell is unknown; `a|b` is
'one of a, b'.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tagger import storage
from tagger.errors import ImageError, SchemaError, UsageError
from tagger.model.engine import InputSpec
from tagger.schema import Schema
from tagger.source.decode import decode
from tagger.source.fetch import Fetcher, Prober
from tagger.source.manifest import Manifest

SPLITS = ("train", "val", "test")
PROBING_THREADS = 16  # a store takes its time for every answer, and they are small


@dataclass(frozen=True)
class LabelledPhotos:
    """Labels of one or several files, row by row."""

    schema: Schema
    uris: tuple[str, ...]  # resolved: absolute path or URI
    item_ids: tuple[str, ...]
    sources: tuple[str, ...]  # which labels file a row comes from
    splits: tuple[str, ...]  # train, val, test or '' where the file has no such column
    allowed: npt.NDArray[np.bool_]  # (photos, n_scores): the values a label leaves possible; all False: unknown
    groups: tuple[str, ...]  # contributor or brand, after its column, or the item, after its file: not to cross splits

    def __len__(self) -> int:
        return len(self.uris)

    def select(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> LabelledPhotos:
        """The rows that `keep` marks (a mask) or lists (positions)."""
        array = np.asarray(keep)
        rows = np.flatnonzero(array) if array.dtype == np.bool_ else array
        return LabelledPhotos(
            self.schema,
            tuple(self.uris[i] for i in rows),
            tuple(self.item_ids[i] for i in rows),
            tuple(self.sources[i] for i in rows),
            tuple(self.splits[i] for i in rows),
            self.allowed[rows],
            tuple(self.groups[i] for i in rows),
        )

    def in_split(self, split: str) -> LabelledPhotos:
        return self.select(np.array([s == split for s in self.splits], dtype=bool))


@dataclass(frozen=True)
class LabelRules:
    """What labels files may hold beside the words of the schema."""

    masked: Mapping[str, Collection[str]] = field(default_factory=dict)
    """attribute → values that the schema left out on purpose: a cell that names one is unknown."""
    mask_others: bool = False  # every value that the schema lacks makes its cell unknown; else it is an error
    bare_files: bool = False  # a file without a column of the schema is a list of photos that are labelled elsewhere


@dataclass(frozen=True)
class LabelReading:
    """Labels as they were read, and what was passed over."""

    photos: LabelledPhotos
    masked: Mapping[str, Counter[str]]  # attribute → value outside the schema → cells that are unknown for it
    other_columns: Mapping[str, tuple[str, ...]]  # file → columns that are no attribute, no id, photo, split or group


def read_labels(
    files: Sequence[str],
    schema: Schema,
    group_columns: Sequence[str] = (),
    masked: Mapping[str, Collection[str]] | None = None,
) -> LabelledPhotos:
    """All rows of `files`; attributes without a column are unknown everywhere.

    Args:
        group_columns: the first of these columns that a file has names the row's group; without one every item is
            its own group.
        masked: attribute → values that the schema left out on purpose (`Bundle.masked`): a cell with one is unknown.

    Raises:
        ManifestError: a file cannot be read.
        SchemaError: a cell holds a value its attribute does not have; the text names file, line and column.
        UsageError: no file has a column for any attribute, or a split is none of train, val, test.
    """
    return read_labels_by(files, schema, group_columns, LabelRules(masked=masked or {})).photos


def read_labels_by(
    files: Sequence[str], schema: Schema, group_columns: Sequence[str], rules: LabelRules
) -> LabelReading:
    """As `read_labels`, with rules of one's own, and with word of what they passed over."""
    uris, ids, sources, splits, groups, masks = [], [], [], [], [], []
    cells_of = _Cells(schema, rules)
    other_columns = {}
    named: set[str] = set()
    for file in files:
        place = file if storage.is_remote(file) else os.path.realpath(storage.local_path(file))
        if place in named:
            raise UsageError(f"{file} is named twice: its rows would count twice")
        named.add(place)
        manifest = Manifest.open(file)
        columns = [a.name for a in schema.attributes if a.name in manifest.columns]
        if not columns and not rules.bare_files:
            raise UsageError(
                f"{file} has no column of the schema {schema.name}: "
                f"expected some of {', '.join(schema.by_name)}, found {', '.join(manifest.columns)}"
            )
        group_column = next((c for c in group_columns if c in manifest.columns), None)
        extra = [c for c in ("split", group_column) if c and c in manifest.columns]
        known = {*columns, *extra, manifest.item_column, manifest.image_column}
        other_columns[file] = tuple(c for c in manifest.columns if c not in known)
        for item in manifest.items(keep=tuple(columns + extra)):
            cells = dict(zip(columns + extra, item.extra, strict=True))
            where = f"{file}, row {item.row + 1}"
            split = cells.get("split") or ""
            if split not in (*SPLITS, ""):
                raise UsageError(f"{where}: the split {split!r} is none of train, val, test")
            mask = np.zeros(schema.n_scores, dtype=bool)
            for column in columns:
                cells_of.mark(mask, column, cells[column] or "", where)
            uris.append(manifest.resolve(item.image_uri))
            ids.append(item.item_id)
            sources.append(file)
            splits.append(split)
            group = cells.get(group_column or "")
            groups.append(f"{group_column}\x1f{group}" if group else f"{file}\x1f{item.item_id}")
            masks.append(mask)
    allowed = np.stack(masks) if masks else np.zeros((0, schema.n_scores), dtype=bool)
    photos = LabelledPhotos(schema, tuple(uris), tuple(ids), tuple(sources), tuple(splits), allowed, tuple(groups))
    return LabelReading(photos, cells_of.masked, other_columns)


def says_something(label: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(…, values) → (…, 1): False where a label leaves every value possible, and so is none."""
    return np.asarray(~label.all(axis=-1, keepdims=True) | (label.shape[-1] < 2))


class _Cells:
    """Cells of labels files to allowed values; counts those that are unknown for a value outside the schema."""

    def __init__(self, schema: Schema, rules: LabelRules) -> None:
        self.masked: dict[str, Counter[str]] = {}
        self._schema = schema
        self._rules = rules

    def mark(self, mask: npt.NDArray[np.bool_], column: str, cell: str, where: str) -> None:
        """Set the values that `cell` leaves possible in `mask`, (n_scores,); raises `SchemaError` for another one."""
        attribute = self._schema.by_name[column]
        values = [value for value in (part.strip() for part in cell.split("|")) if value]
        outside = [value for value in values if value not in attribute.value_names and self._is_masked(column, value)]
        if outside:  # 'one of red, mint' without mint is not 'red'
            self.masked.setdefault(column, Counter()).update(outside)
            return
        start = self._schema.slices[column].start
        for value in values:
            try:
                mask[start + attribute.index(value)] = True
            except SchemaError as error:
                raise SchemaError(f"{where}: {error}") from None
        part = mask[self._schema.slices[column]]
        part &= says_something(part)

    def _is_masked(self, column: str, value: str) -> bool:
        return self._rules.mask_others or value in self._rules.masked.get(column, ())


@dataclass(frozen=True)
class PhotoPack:
    """Photos decoded once: squares of uint8 RGB in one file, read through a memory map."""

    pixels: npt.NDArray[np.uint8]  # (photos, size, size, 3)
    opened: npt.NDArray[np.bool_]  # (photos,): False where the photo could not be read
    failures: tuple[tuple[str, str], ...]  # (uri, error) of those
    sha256: tuple[str, ...] = ()  # of each photo's bytes; empty for one that could not be read
    key: str = ""  # a digest of what was packed: another one, other pixels


def pack_photos(
    photos: LabelledPhotos,
    fetch: Fetcher,
    folder: Path,
    size: int,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
    probe: Prober | None = None,
) -> PhotoPack:
    """Decode every photo once to `size` × `size` in `folder`; a pack of the same photos is taken up again.

    Args:
        probe: tells size and change mark of a photo without reading it, so that one which was written again since
            the pack was made is noticed, and the pack made anew; None: equal URIs are taken for equal photos.
    """
    key = _pack_key(photos.uris, size, workers, probe)
    data_file, index_file = folder / f"photos-{key}.uint8", folder / f"photos-{key}.json"
    shape = (len(photos), size, size, 3)
    if not index_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = data_file.with_suffix(".unfinished")
        pixels = np.memmap(unfinished, np.uint8, "w+", shape=shape)
        failures: dict[int, str] = {}
        sha256 = [""] * len(photos)

        def one(i: int) -> None:
            try:
                data = fetch(photos.uris[i]).data
                pixels[i] = decode(data, size).pixels
                sha256[i] = hashlib.sha256(data).hexdigest()
            except ImageError as error:
                failures[i] = str(error)

        with ThreadPoolExecutor(workers) as pool:
            for done, _ in enumerate(pool.map(one, range(len(photos))), 1):
                progress(done)
        pixels.flush()
        del pixels
        os.replace(unfinished, data_file)
        index = {"failures": [[i, failures[i]] for i in sorted(failures)], "sha256": sha256}
        storage.write_bytes(str(index_file), json.dumps(index).encode())  # last: a killed packing leaves none
    index = json.loads(index_file.read_bytes())
    opened = np.ones(len(photos), dtype=bool)
    opened[[i for i, _ in index["failures"]]] = False
    failed = tuple((photos.uris[i], text) for i, text in index["failures"])
    mapped = np.memmap(data_file, np.uint8, "r", shape=shape)
    return PhotoPack(mapped, opened, failed, tuple(index["sha256"]), key)


def _pack_key(uris: Sequence[str], size: int, workers: int, probe: Prober | None) -> str:
    """A digest of the photos, of their change marks and of the way they are decoded."""

    def mark(uri: str) -> list[str | int]:
        try:
            return [uri, *(probe(uri) if probe else ())]
        except ImageError as error:  # it may be there the next time
            return [uri, error.kind]

    with ThreadPoolExecutor(max(workers, PROBING_THREADS)) as pool:
        marks = list(pool.map(mark, uris))
    text = json.dumps([size, InputSpec(size).version, marks])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def value_counts(photos: LabelledPhotos) -> dict[str, Counter[str]]:
    """How many rows are labelled with exactly each value, by attribute; partial labels count nowhere."""
    counts: dict[str, Counter[str]] = {}
    for attribute in photos.schema.attributes:
        mask = photos.allowed[:, photos.schema.slices[attribute.name]]
        single = mask[mask.sum(1) == 1]
        counts[attribute.name] = Counter(dict(zip(attribute.value_names, single.sum(0).tolist(), strict=True)))
    return counts


def sampling_weights(photos: LabelledPhotos, threshold: float) -> npt.NDArray[np.float64]:
    """Chance of each photo to be drawn: sources weigh the same, photos with rare values more.

    Within a source a photo weighs the largest of max(1, sqrt(threshold / share)) over the values it is labelled
    with, `share` being the value's part of the source's photos with that attribute known: repeat-factor sampling
    (Gupta, Dollár, Girshick 2019, LVIS, section 5.3).
    """
    weights = np.ones(len(photos))
    sources = np.array(photos.sources)
    for source in sorted(set(photos.sources)):
        rows = np.flatnonzero(sources == source)
        for part in photos.schema.slices.values():
            mask = photos.allowed[rows, part]
            single = mask & (mask.sum(1, keepdims=True) == 1)
            share = single.sum(0) / max(1, int(mask.any(1).sum()))
            factor = np.sqrt(threshold / np.maximum(share, 1e-4)).clip(1.0, 4.0)
            weights[rows] = np.maximum(weights[rows], np.where(single, factor, 1.0).max(1))
        weights[rows] /= weights[rows].sum()
    weights /= weights.sum()
    return weights


@dataclass(frozen=True)
class Augmentation:
    """Changes of a photo that leave every attribute true: no hue, no saturation, no vertical flip."""

    scale: tuple[float, float] = (0.72, 1.2)  # side of the crop as a share of the photo's side; above 1 pads
    # ^ smaller crops would cut off sleeves, hems and necks, and make their labels untrue
    rotation: float = 12.0  # degrees, either way, of four photos in ten
    aspect: tuple[float, float] = (0.85, 1.18)  # further stretch of the crop
    squash: float = 0.75  # half of the photos are squeezed or stretched by up to this: shops squash 3:4 to 1:1
    brightness: float = 0.12


def augment(
    pixels: npt.NDArray[np.uint8], size: int, plan: Augmentation, generator: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A random padded crop of a square photo, (side, side, 3) → (size, size, 3)."""
    side = pixels.shape[0]
    if generator.random() < 0.4:
        turned = Image.fromarray(pixels).rotate(
            generator.uniform(-plan.rotation, plan.rotation), Image.Resampling.BILINEAR, fillcolor=(255, 255, 255)
        )
        pixels = np.asarray(turned)
    squash = generator.uniform(plan.squash, 1.0) if generator.random() < 0.5 else 1.0
    ratio = np.exp(generator.uniform(np.log(plan.aspect[0]), np.log(plan.aspect[1])))
    ratio = ratio / squash if generator.random() < 0.65 else ratio * squash
    area = generator.uniform(*plan.scale)
    width, height = side * area * np.sqrt(ratio), side * area / np.sqrt(ratio)
    border = int(np.ceil(max(0.0, max(width, height) - side) / 2 + 0.08 * side))
    left = generator.uniform(*sorted((-0.05 * side, side * 1.05 - width)))
    top = generator.uniform(*sorted((-0.05 * side, side * 1.05 - height)))
    padded = np.pad(pixels, ((border, border), (border, border), (0, 0)), constant_values=255)
    limit = padded.shape[0]
    box = (
        float(np.clip(left + border, 0, limit - 2)),
        float(np.clip(top + border, 0, limit - 2)),
        float(np.clip(left + border + width, 2, limit)),
        float(np.clip(top + border + height, 2, limit)),
    )
    resample = Image.Resampling.BICUBIC if generator.random() < 0.7 else Image.Resampling.BILINEAR
    image = Image.fromarray(padded).resize((size, size), resample, box=box)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    result = np.asarray(image)
    if plan.brightness:
        gain = generator.uniform(1 - plan.brightness, 1 + plan.brightness)
        result = np.clip(result * gain, 0, 255).astype(np.uint8)
    return result


def fit_square(pixels: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """A packed photo at the served size, without augmentation."""
    if pixels.shape[0] == size:
        return np.asarray(pixels)
    return np.asarray(Image.fromarray(np.asarray(pixels)).resize((size, size), Image.Resampling.BICUBIC))


def prefetch(
    tasks: Iterator[Callable[[], npt.NDArray[np.uint8]]], batch: int, workers: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Batches of the tasks' results in order, made ahead by threads; the last batch may be smaller."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: list[list[object]] = []

        def fill() -> None:
            while len(ahead) < 3:
                futures: list[object] = [pool.submit(task) for _, task in zip(range(batch), tasks, strict=False)]
                if not futures:
                    return
                ahead.append(futures)

        fill()
        while ahead:
            futures = ahead.pop(0)
            fill()
            yield np.stack([future.result() for future in futures])  # type: ignore[attr-defined]
