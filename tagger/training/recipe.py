"""`tagger train` and `tagger calibrate`: labels in, a bundle out.

Nothing but the split train is fitted, nothing but val calibrated; photos of test are opened for one thing only: no
photo of theirs may stand in another split.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger import __version__, storage
from tagger.errors import UsageError
from tagger.model.bundle import WEIGHTS, Bundle, NetworkSpec, load_bundle, save_bundle, sha256_of
from tagger.model.confidence import DEFAULT_TARGET, Calibration, digest
from tagger.model.descriptor import fit_describer, save_describer
from tagger.model.engine import InputSpec
from tagger.model.export import export_network
from tagger.schema import load_schema
from tagger.source.fetch import PhotoSource, mask_uri
from tagger.training.calibrate import MIN_ACCEPTED, MIN_GROUPS, explain, fit_calibration
from tagger.training.data import LabelledPhotos, PhotoPack, pack_photos, read_labels, value_counts
from tagger.training.evaluate import measure
from tagger.training.leaks import fingerprint, without_test_photos
from tagger.training.scores import PhotoScores, ScoreFunction
from tagger.training.sources import choose_rows, source_names
from tagger.training.train import Stage, TrainConfig, fit, provenance

PACK_SIZE = 256  # pixels; photos are decoded once at this size
NAMED = 10  # photos that are named in a line about many
MODEL_CARD = "MODEL_CARD.md"


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
    initial = initial_weights(recipe)  # before hours of work: it may not be there
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
    fitted, lines = _usable(fitted, pack)
    fitted, leaks = without_test_photos(fitted, pack, photos.in_split("test"), PhotoSource(), recipe.workers)
    if leaks:
        named = [mask_uri(fitted.uris[row]) for row in leaks]
        lines.append(_listed("photos of train and val are photos of test too and are left out", named))
    _claim(work, config, fitted, initial)
    unlearned, report = _data_report(fitted)
    lines += _rows_left_out(photos) + report
    net = fit(fitted, pack, config, work, initial, progress)
    out = Path(recipe.out)
    size = config.stages[-1].size
    export_network(net, out, size)
    bundle = Bundle(
        folder=str(out),
        name=recipe.name or out.name,
        schema=schema,
        input_spec=InputSpec(size),
        network=NetworkSpec(recipe.backbone, int(net.backbone.num_features)),  # type: ignore[arg-type]
        calibration=Calibration(),
        provenance={
            "command": recipe.command,
            "tagger": __version__,
            "photos": {"train": len(fitted.in_split("train")), "val": len(fitted.in_split("val"))},
            "training": provenance(config),
        },
    )
    bundle = save_bundle(bundle, str(out))
    bundle, notes = calibrate_bundle(bundle, fitted.in_split("val"), score, str(work), recipe.seed, unlearned)
    return bundle, lines + notes


def calibrate_bundle(
    bundle: Bundle, val: LabelledPhotos, score: ScoreFunction, work: str, seed: int, unlearned: Collection[str] = ()
) -> tuple[Bundle, list[str]]:
    """`bundle` with descriptors and a calibration from `val`, saved in its folder; and a line per attribute.

    Args:
        unlearned: attributes that get no threshold, since training saw one value of them or none.
    """
    scores = score(bundle.folder, val, work)
    val, scores = val.select(scores.ok), scores.select(scores.ok)
    descriptors = _with_descriptors(scores, bundle.folder)
    fitted = fit_calibration(scores.logits, val, seed, never=unlearned, descriptors=descriptors)
    figures = _named(measure(scores.logits, val, fitted.calibration, DEFAULT_TARGET, seed, descriptors=descriptors))
    bundle = replace(bundle, calibration=fitted.calibration, metrics={"val": figures})
    return save_bundle(bundle, bundle.folder), explain(bundle.schema, fitted)


def _with_descriptors(scores: PhotoScores, folder: str) -> npt.NDArray[np.float32] | None:
    """The descriptors of `scores`; where the bundle makes none yet, its way to them is fitted and put into `folder`."""
    if scores.descriptors is not None or scores.embeddings is None:
        return scores.descriptors
    describer = fit_describer(scores.embeddings)
    save_describer(describer, folder)
    return describer.describe(scores.embeddings)


# ---------------------------------------------------------------------------------------------- a shop's own sample


@dataclass(frozen=True)
class Recalibration:
    """What `tagger calibrate` is asked to do."""

    labels: tuple[str, ...]
    bundle: str
    out: str
    command: str  # for the bundle's provenance
    splits: tuple[str, ...] = ()  # none: val, or every row of a file without splits
    groups: tuple[str, ...] = ("contributor", "brand")
    seed: int = 0
    add_descriptor: bool = False  # to a bundle that makes none; it becomes another bundle by that


def recalibrate_bundle(recalibration: Recalibration, score: ScoreFunction) -> tuple[Bundle, list[str]]:
    """Write a copy of a bundle whose temperatures and thresholds fit other labels; and a line per attribute.

    Its gate lets pass what these photos are like; a bundle that makes no descriptors gets none, unless they are added.

    An attribute that the labels say nothing of keeps its temperature and is always reviewed: it was never checked on
    these photos.

    Raises:
        UsageError: the labels cannot be used or are too few, none of the photos can be read, or the new bundle's
            folder holds something else.
    """
    bundle = load_bundle(recalibration.bundle)
    _check_target(bundle, recalibration.out)
    photos = read_labels(recalibration.labels, bundle.schema, recalibration.groups)
    photos = choose_rows(photos, recalibration.splits, "val")
    check_sample(photos)
    scores = score(bundle.folder, photos, recalibration.out.rstrip("/") + ".work")
    ok = scores.ok
    if not ok.any():
        raise UsageError(f"none of the {len(photos)} photos could be read; the first is {mask_uri(photos.uris[0])}")
    unread = [mask_uri(photos.uris[i]) for i in np.flatnonzero(~ok)]
    photos, scores = photos.select(ok), scores.select(ok)
    check_sample(photos)
    if recalibration.add_descriptor:
        scores = scores._replace(descriptors=_with_descriptors(scores, recalibration.out))
    fitted = fit_calibration(
        scores.logits,
        photos,
        recalibration.seed,
        temperatures=bundle.calibration.temperatures,
        descriptors=scores.descriptors,
    )
    figures = _named(
        measure(
            scores.logits,
            photos,
            fitted.calibration,
            DEFAULT_TARGET,
            recalibration.seed,
            descriptors=scores.descriptors,
        )
    )
    for name in bundle.files:
        _copy(storage.join(bundle.folder, name), storage.join(recalibration.out, name))
    _copy_card(bundle.folder, recalibration, len(photos))
    calibrated = {"command": recalibration.command, "tagger": __version__, "photos": len(photos)}
    copy = replace(
        bundle,
        calibration=fitted.calibration,
        provenance=bundle.provenance | {"calibrated": calibrated},
        metrics=bundle.metrics | {"calibrated": figures},
    )
    lines = [_listed(f"of {len(ok)} photos could not be read and are left out", unread)] if unread else []
    return save_bundle(copy, recalibration.out), lines + explain(bundle.schema, fitted)


def check_sample(photos: LabelledPhotos) -> None:
    """Raises `UsageError` where no attribute has enough labels for a threshold."""
    most, groups = 0, 0
    for part in photos.schema.slices.values():
        known = photos.allowed[:, part].any(axis=1)
        for source in set(photos.sources):
            rows = np.flatnonzero(known & (np.array(photos.sources) == source))
            most = max(most, len(rows))
            if len(rows) >= MIN_ACCEPTED:
                groups = max(groups, len({photos.groups[i] for i in rows}))
    if most < MIN_ACCEPTED or groups < MIN_GROUPS:
        found = f"at most {most} photos" if most < MIN_ACCEPTED else f"photos of {groups} groups"
        raise UsageError(
            f"too few labels: {found} are labelled with one attribute, a threshold needs {MIN_ACCEPTED} photos in "
            f"{MIN_GROUPS} groups of one file; label at least 200 photos drawn at random"
        )


def _check_target(bundle: Bundle, out: str) -> None:
    """Raises `UsageError` where `out` is the bundle itself or holds another one."""
    if storage.exists(storage.join(out, "bundle.json")):
        if storage.etag(storage.join(out, "bundle.json")) == storage.etag(storage.join(bundle.folder, "bundle.json")):
            raise UsageError(f"--out {out} is the bundle itself; name a new folder")
        if load_bundle(out).bundle_id != bundle.bundle_id:
            raise UsageError(f"--out {out} holds another bundle; name a new folder")


def _copy(source: str, target: str) -> None:
    """Copied, not linked: a later training into the one folder must not change the other."""
    with storage.open_read(source) as read, storage.writer(target) as write:
        shutil.copyfileobj(read, write, 1 << 20)


def _copy_card(folder: str, recalibration: Recalibration, n_photos: int) -> None:
    """The model card, with a word on what of it no longer holds."""
    card = storage.join(folder, MODEL_CARD)
    if not storage.exists(card):
        return
    text = (
        "\n## Calibrated again\n\nThe weights are those described above. Temperatures and thresholds, and with them "
        f"what is accepted, were fitted anew to {n_photos:,} labelled photos; figures above that hang on thresholds "
        f"are the old ones.\n\n```\n{recalibration.command}\n```\n"
    )
    storage.write_bytes(storage.join(recalibration.out, MODEL_CARD), storage.read_bytes(card) + text.encode())


# ----------------------------------------------------------------------------------------------------------- labels


def check_splits(photos: LabelledPhotos) -> None:
    """Raises `UsageError` where a split is missing, or a group or a photo stands in two."""
    for split in ("train", "val"):
        if split not in photos.splits:
            raise UsageError(
                f"the labels have no row with split {split}: add a column split with train, val and test, "
                "the same contributor or brand always in the same one"
            )
    split_of: dict[str, str] = {}
    for group, uri, split in zip(photos.groups, photos.uris, photos.splits, strict=True):
        if split and split_of.setdefault(group, split) != split:
            file, _, name = group.partition("\x1f")
            raise UsageError(f"{file}: {name!r} stands in the splits {split_of[group]} and {split}; choose one")
        if split and uri and split_of.setdefault(f"\x1f{uri}", split) != split:
            other = split_of[f"\x1f{uri}"]
            raise UsageError(f"the photo {mask_uri(uri)} stands in the splits {other} and {split}; choose one")


def _usable(photos: LabelledPhotos, pack: PhotoPack) -> tuple[LabelledPhotos, list[str]]:
    """`photos` with val free of photos that train has too, and lines on what cannot be used.

    Raises:
        UsageError: no photo of a split can be read.
    """
    lines = []
    if pack.failures:
        named = [f"{mask_uri(uri)} ({error})" for uri, error in pack.failures]
        lines.append(_listed(f"of {len(photos)} photos could not be read and are left out", named))
    splits = np.array(photos.splits, dtype=object)
    unlabelled = (splits == "train") & ~photos.allowed.any(axis=1)
    if unlabelled.any():
        lines.append(f"{unlabelled.sum()} rows of train have no label and teach nothing")
        splits[unlabelled] = ""
    seen = {fingerprint(pack.pixels[i]) for i in np.flatnonzero((splits == "train") & pack.opened)}
    val = np.flatnonzero((splits == "val") & pack.opened)
    repeated = [i for i in val.tolist() if fingerprint(pack.pixels[i]) in seen]
    if repeated:
        named = [mask_uri(photos.uris[i]) for i in repeated]
        lines.append(_listed("of the photos of val are photos of train too and are left out", named))
        splits[repeated] = ""
    for split in ("train", "val"):
        if not ((splits == split) & pack.opened).any():
            raise UsageError(f"no photo of the split {split} is left; {'; '.join(lines)}")
    return replace(photos, splits=tuple(splits.tolist())), lines


def _claim(work: Path, config: TrainConfig, photos: LabelledPhotos, initial: Path | None) -> None:
    """Make `work` this training's; raises `UsageError` where it holds the checkpoints of another one."""
    options = {k: v for k, v in provenance(config).items() if k not in ("device", "workers")}
    key = {
        **{name: digest(value) if isinstance(value, dict) else value for name, value in options.items()},
        "schema": digest(photos.schema.to_dict()),
        "labels": digest([photos.uris, photos.splits, hashlib.sha256(photos.allowed.tobytes()).hexdigest()]),
        "init": initial and sha256_of(str(initial)),
    }
    key = json.loads(json.dumps(key))  # tuples become lists, as the file has them
    file = work / "training.json"
    if file.exists():
        before = json.loads(file.read_text())
        differences = [name for name in key if before.get(name) != key[name]]
        if differences:
            raise UsageError(
                f"{work} holds another training ({', '.join(differences)} differ): remove that folder, or choose "
                "another --out"
            )
    file.write_text(json.dumps(key, indent=1) + "\n")


def _rows_left_out(photos: LabelledPhotos) -> list[str]:
    without = sum(not split for split in photos.splits)
    return [f"{without} of {len(photos)} rows name no split and are left out"] if without else []


def _listed(what: str, names: list[str]) -> str:
    """`2 of the photos …: a, b`, and how many more."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what}: {', '.join(names[:NAMED])}{more}"


def _data_report(photos: LabelledPhotos) -> tuple[list[str], list[str]]:
    """Attributes that the labels of train say too little of, and a line on each."""
    unlearned, lines = [], []
    for name, counts in value_counts(photos.in_split("train")).items():
        with_photos = [value for value, n in counts.items() if n]
        if len(with_photos) > 1:
            continue
        unlearned.append(name)
        if with_photos:
            lines.append(f"{name}: every label is {with_photos[0]}; nothing can be learned of it")
        else:
            lines.append(f"{name}: no photo is labelled; nothing is learned of it")
    return unlearned, lines


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


def _named(figures: dict[str, Any]) -> dict[str, Any]:
    names = source_names(figures)
    return {names[source]: by_attribute for source, by_attribute in figures.items()}
