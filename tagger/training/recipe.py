"""`tagger train`: labels in, a bundle out, and nothing but train fitted, nothing but val calibrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger import __version__, storage
from tagger.errors import UsageError
from tagger.model.bundle import WEIGHTS, Bundle, NetworkSpec, load_bundle, save_bundle
from tagger.model.confidence import DEFAULT_TARGET, Calibration
from tagger.model.engine import InputSpec
from tagger.model.export import export_network
from tagger.schema import Schema, load_schema
from tagger.source.fetch import PhotoSource
from tagger.training.calibrate import fit_calibration
from tagger.training.data import LabelledPhotos, pack_photos, read_labels, value_counts
from tagger.training.evaluate import measure
from tagger.training.train import Stage, TrainConfig, fit, provenance

PACK_SIZE = 256  # pixels; photos are decoded once at this size

ScoreFunction = Callable[[str, LabelledPhotos, str], tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]
"""(bundle folder, photos, folder to work in) → scores (photos, n_scores) and which photos are ok."""


@dataclass(frozen=True)
class Recipe:
    """What `tagger train` is asked to do."""

    labels: tuple[str, ...]
    out: str
    command: str  # for the model card
    schema_name: str = "apparel"
    init: str = "default"
    name: str | None = None
    backbone: str = "tf_efficientnet_lite0"
    stages: str = "10@128,8@176,4@224"
    batch_size: int = 64
    groups: tuple[str, ...] = ("contributor", "brand")
    device: str = "cpu"
    precision: str = "float32"
    seed: int = 0
    workers: int = 2


def train_bundle(
    recipe: Recipe, score: ScoreFunction, progress: Callable[[str, int, int], None]
) -> tuple[Bundle, list[str]]:
    """Train, export and calibrate; returns the bundle and lines for a person.

    Raises:
        UsageError: the labels, the splits or the options cannot be used.
    """
    schema = load_schema(recipe.schema_name)
    config = TrainConfig(
        backbone=recipe.backbone,
        stages=Stage.parse(recipe.stages),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        device=recipe.device,
        precision=recipe.precision,
        workers=recipe.workers,
    )
    photos = read_labels(recipe.labels, schema, recipe.groups)
    check_splits(photos)
    work = Path(recipe.out.rstrip("/") + ".work")
    fitted = photos.select(np.array([split in ("train", "val") for split in photos.splits], dtype=bool))
    pack = pack_photos(
        fitted,
        PhotoSource(),
        work,
        PACK_SIZE,
        recipe.workers,
        lambda done: progress("reading photos", done, len(fitted)),
    )
    lines = [f"{uri} could not be read: {error}" for uri, error in pack.failures]
    lines += _data_report(fitted)
    net = fit(fitted, pack, config, work, initial_weights(recipe), progress)
    out = Path(recipe.out)
    size = config.stages[-1].size
    export_network(net, out, size)
    bundle = Bundle(
        folder=str(out),
        name=recipe.name or out.name,
        schema=schema,
        input_spec=InputSpec(size),
        network=NetworkSpec(recipe.backbone, int(net.heads[schema.attributes[0].name].in_features)),  # type: ignore[arg-type]
        calibration=Calibration(),
        provenance={
            "command": recipe.command,
            "tagger": __version__,
            "photos": {"train": len(photos.in_split("train")), "val": len(photos.in_split("val"))},
            "training": provenance(config),
        },
    )
    bundle = save_bundle(bundle, str(out))
    bundle, notes = calibrate_bundle(bundle, photos.in_split("val"), score, str(work), recipe.seed)
    return bundle, lines + notes


def calibrate_bundle(
    bundle: Bundle, val: LabelledPhotos, score: ScoreFunction, work: str, seed: int
) -> tuple[Bundle, list[str]]:
    """`bundle` with temperatures, thresholds and figures from `val`, saved in its folder."""
    logits, ok = score(bundle.folder, val, work)
    val = val.select(ok)
    calibration, notes = fit_calibration(logits[ok], val, seed)
    figures = measure(logits[ok], val, calibration, DEFAULT_TARGET, seed)
    named = {_source_name(source): by_attribute for source, by_attribute in figures.items()}
    bundle = replace(bundle, calibration=calibration, metrics={"val": named})
    return save_bundle(bundle, bundle.folder), notes


def check_splits(photos: LabelledPhotos) -> None:
    """Raises `UsageError` where a split is missing or a group (contributor, brand, item) stands in two."""
    for split in ("train", "val"):
        if split not in photos.splits:
            raise UsageError(
                f"the labels have no row with split {split}: add a column split with train, val and test, "
                "the same contributor or brand always in the same one"
            )
    split_of: dict[str, str] = {}
    for group, split in zip(photos.groups, photos.splits, strict=True):
        if split and split_of.setdefault(group, split) != split:
            file, _, name = group.partition("\x1f")
            raise UsageError(f"{file}: {name!r} stands in the splits {split_of[group]} and {split}; choose one")


def initial_weights(recipe: Recipe) -> Path | None:
    """The safetensors file to start from; `imagenet` is fetched by timm."""
    if recipe.init == "default":
        bundle = load_bundle()
        if bundle.network.backbone != recipe.backbone:
            raise UsageError(
                f"--init default is a {bundle.network.backbone}; for {recipe.backbone} use --init imagenet"
            )
        return Path(bundle.file(WEIGHTS))
    if recipe.init != "imagenet":
        if not storage.exists(recipe.init):
            raise UsageError(f"--init {recipe.init}: there is no such file")
        return Path(recipe.init)
    return _download_imagenet(recipe)


def _download_imagenet(recipe: Recipe) -> Path:
    import timm
    from safetensors.torch import save_file

    try:
        backbone = timm.create_model(recipe.backbone, num_classes=0, pretrained=True)
    except Exception as error:  # the hub's client raises a dozen unrelated types
        raise UsageError(
            f"--init imagenet: timm could not download {recipe.backbone} ({type(error).__name__}); "
            "give a safetensors file with --init FILE, or start from the shipped bundle with --init default"
        ) from None
    file = Path(recipe.out.rstrip("/") + ".work") / "imagenet.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(backbone.state_dict(), file)
    return file


def _data_report(photos: LabelledPhotos) -> list[str]:
    """Attributes that the labels say too little of."""
    lines = []
    for name, counts in value_counts(photos.in_split("train")).items():
        with_photos = [value for value, n in counts.items() if n]
        if not with_photos:
            lines.append(f"{name}: no photo is labelled; nothing is learned of it and it is always reviewed")
        elif len(with_photos) == 1:
            lines.append(f"{name}: every label is {with_photos[0]}; nothing can be learned of it")
    return lines


def _source_name(labels_file: str) -> str:
    """`…/cc0/labels.csv` → `cc0`; the file's own name where it tells more."""
    path = Path(labels_file)
    return path.parent.name if path.stem == "labels" and path.parent.name else path.stem


def describe(schema: Schema, figures: dict[str, Any]) -> str:
    """`measure`'s figures as a Markdown table per source."""
    lines = []
    for source, by_attribute in figures.items():
        lines += [f"### {source}", "", "| attribute | right | 95 % interval | n | groups | accepted | precision |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for attribute in schema.attributes:
            cell = by_attribute.get(attribute.name)
            if cell:
                precision = "" if cell["precision"] is None else f"{cell['precision']:.3f}"
                lines.append(
                    f"| {attribute.name} | {cell['right']:.3f} | {cell['low']:.3f}–{cell['high']:.3f} | {cell['n']} | "
                    f"{cell['groups']} | {cell['accepted']:.2f} | {precision} |"
                )
        lines.append("")
    return "\n".join(lines)
