"""`tagger train` and `tagger calibrate`: labels in, a bundle out.

Nothing but the split train is fitted, nothing but val calibrated; photos of test are opened for one thing only: no
photo of theirs may stand in another split.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagger import __version__, storage
from tagger.errors import UsageError
from tagger.model.bundle import Bundle, NetworkSpec, load_bundle, save_bundle, sha256_of
from tagger.model.confidence import DEFAULT_TARGET, Calibration, digest
from tagger.model.descriptor import fit_describer, save_describer
from tagger.model.engine import InputSpec
from tagger.model.export import export_network
from tagger.model.net import AttributeNet
from tagger.model.torch_engine import check_device
from tagger.schema import load_schema
from tagger.source.fetch import mask_uri
from tagger.training.calibrate import MIN_ACCEPTED, MIN_GROUPS, explain, fit_calibration
from tagger.training.corrections import correct_sample, drawn_with_labels, read_decisions, without_bare_rows
from tagger.training.data import LabelledPhotos, LabelRules, PhotoPack, read_labels_by
from tagger.training.data_report import write_data_report
from tagger.training.evaluate import measure
from tagger.training.label_errors import FILE_NAME, attribute_counts, doubt_labels, embed, write_label_errors
from tagger.training.pooling import with_pooling
from tagger.training.prepare import Preparation, Prepared, correction_lines, listed, prepare, summary_lines
from tagger.training.scores import PhotoScores, ScoreFunction, check_out
from tagger.training.sources import choose_rows, source_names
from tagger.training.start import initial_weights
from tagger.training.train import FILES, Stage, TrainConfig, fit, load_weights, provenance

MODEL_CARD = "MODEL_CARD.md"
HEADS_FASTER = 5  # than the backbone: they start from nothing
CLAIM = "training.json"  # in the work folder: whose checkpoints they are


@dataclass(frozen=True)
class Recipe:
    """What `tagger train` is asked to do."""

    labels: tuple[str, ...]
    out: str
    command: str  # for the model card
    schema_name: str = "apparel"
    init: tuple[str, ...] = ("default",)  # several: their mean
    lr: float | None = None  # of the backbone's last block; None: the usual one
    name: str | None = None
    backbone: str = "tf_efficientnet_lite0"
    stages: str = "10@128,8@176,4@224"
    freeze: int = 0
    taps: tuple[int, ...] = ()  # none: those of the default bundle where training starts from it
    batch_size: int = 64
    mixup: float = TrainConfig.mixup
    drop_path: float = TrainConfig.drop_path
    dropout: float = TrainConfig.dropout
    weight_decay: float = TrainConfig.weight_decay
    groups: tuple[str, ...] = ("contributor", "brand")
    device: str = "cpu"
    precision: str = "float32"
    seed: int = 0
    workers: int = 2
    decisions: tuple[str, ...] = ()  # folders of ledgers, whose decisions become labels
    min_count: int = 0  # values with fewer photos of train are dropped
    unknown_values: str = "stop"  # what a value that the schema lacks does: stop, or mask its cell
    label_errors: bool = True  # list labels that are likely wrong
    resume: bool = True  # go on from the checkpoint of an earlier start
    allow_http: bool = False  # fetch http(s) photos, from public addresses only
    allow_private_http: bool = False  # and from private ones


def train_bundle(
    recipe: Recipe,
    score: ScoreFunction,
    progress: Callable[[str, int, int], None],
    say: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Train, export and calibrate.

    Everything is made in `OUT.work` and copied to OUT at the end, so that OUT is never half a bundle.

    Args:
        say: takes lines for a person, each as soon as it is known: what surprises in the labels before hours of work.

    Raises:
        UsageError: the labels, the splits or the options cannot be used, or the device is not there.
    """
    check_device(recipe.device)
    check_out(recipe.out)
    schema = load_schema(recipe.schema_name)
    config = TrainConfig(
        backbone=recipe.backbone,
        stages=Stage.parse(recipe.stages),
        frozen_stages=recipe.freeze,
        taps=recipe.taps,
        batch_size=recipe.batch_size,
        mixup=recipe.mixup,
        drop_path=recipe.drop_path,
        dropout=recipe.dropout,
        weight_decay=recipe.weight_decay,
        seed=recipe.seed,
        device=recipe.device,
        precision=recipe.precision,
        workers=recipe.workers,
    )
    if recipe.lr is not None:
        config = replace(config, lr=recipe.lr, head_lr=HEADS_FASTER * recipe.lr)
    work = work_folder(recipe.out)
    wanted = Preparation(
        labels=recipe.labels,
        schema=schema,
        groups=recipe.groups,
        work=work,
        workers=recipe.workers,
        decisions=recipe.decisions,
        min_count=recipe.min_count,
        mask_others=recipe.unknown_values == "mask",
        allow_http=recipe.allow_http,
        allow_private_http=recipe.allow_private_http,
    )
    if not recipe.taps and recipe.init[0] == "default":
        config = replace(config, taps=load_bundle().network.taps)
    initial = initial_weights(recipe.init, recipe.backbone, work)  # before hours of work: it may not be there
    prepared = prepare(wanted, progress)
    photos = prepared.photos
    if not recipe.resume:
        forget(work)
    _claim(work, config, photos, prepared.pack, initial)
    made = work / "bundle"
    shutil.rmtree(made, ignore_errors=True)
    report = write_data_report(prepared, recipe.min_count, str(made))
    for line in summary_lines(prepared):
        say(line)
    drawn = drawn_with_labels(photos, prepared.rows)
    net = fit(drawn, prepared.pack, config, work, initial, progress)
    if recipe.label_errors:
        say(_list_label_errors(net, prepared, config, made, initial, progress))
    export_network(net, made, config.stages[-1].size)
    bundle = save_bundle(_described(recipe, config, net, prepared, report), str(made))
    unlearned = prepared.unlearned
    bundle, notes = calibrate_bundle(bundle, photos.in_split("val"), score, str(work), recipe.seed, unlearned)
    for line in notes:
        say(line)
    return _hand_over(bundle, made, recipe.out)


def _described(
    recipe: Recipe, config: TrainConfig, net: AttributeNet, prepared: Prepared, report: Mapping[str, Any]
) -> Bundle:
    """The bundle before it is calibrated."""
    photos = prepared.photos
    return Bundle(
        folder="",
        name=recipe.name or storage.name(recipe.out),
        schema=photos.schema,
        input_spec=InputSpec(config.stages[-1].size),
        network=NetworkSpec(recipe.backbone, int(net.backbone.num_features), net.taps),  # type: ignore[arg-type]
        calibration=Calibration(),
        provenance={
            "command": recipe.command,
            "tagger": __version__,
            "photos": {"train": len(photos.in_split("train")), "val": len(photos.in_split("val"))},
            "labels": {
                "sources": [{k: v for k, v in source.items() if k != "file"} for source in report["sources"]],
                "decisions": report["decisions"] and report["decisions"]["applied"],
                "min_count": recipe.min_count,
            },
            "masked_values": prepared.masked_values,
            "training": provenance(config),
        },
    )


def work_folder(out: str) -> Path:
    """Where a training into `out` keeps its photos and checkpoints: beside it, or here where `out` is remote."""
    plain = out.rstrip("/")
    return Path(f"{storage.name(plain)}.work" if storage.is_remote(plain) else f"{storage.local_path(plain)}.work")


def _list_label_errors(
    net: AttributeNet,
    prepared: Prepared,
    config: TrainConfig,
    folder: Path,
    initial: Path | None,
    progress: Callable[[str, int, int], None],
) -> str:
    """Write label_errors.csv; returns a line on it."""
    photos, pack = prepared.photos, prepared.pack
    rows = np.flatnonzero([bool(split) for split in photos.splits])
    settled = None if prepared.corrections is None else _columns(prepared, prepared.corrections.decided)[rows]
    views = [embed(judge, pack, rows, config, progress) for judge in (net, _before_training(photos, config, initial))]
    errors = doubt_labels(photos.select(rows), views, settled, config.seed)
    write_label_errors(errors, photos.select(rows), [pack.sha256[row] for row in rows], str(folder))
    if not errors:
        return "no label is likely wrong"
    counts = ", ".join(f"{n} {name}" for name, n in attribute_counts(errors).items())
    return f"{len(errors)} labels are likely wrong ({counts}): {FILE_NAME} lists them, the likeliest first"


def _before_training(photos: LabelledPhotos, config: TrainConfig, initial: Path | None) -> AttributeNet:
    """The network as the training met it."""
    net = AttributeNet(config.backbone, photos.schema, InputSpec(config.stages[-1].size), taps=config.taps)
    if initial is not None:
        load_weights(net, initial)
    return net


def _columns(prepared: Prepared, decided: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """`decided`, (photos, attributes of the schema before trimming), for the attributes that are left."""
    before = list(prepared.untrimmed.schema.by_name)
    return decided[:, [before.index(name) for name in prepared.photos.schema.by_name]]


def _hand_over(bundle: Bundle, made: Path, out: str) -> Bundle:
    """Copy the finished bundle to `out`; its description comes last, so that nothing reads half a bundle."""
    names = sorted(path.name for path in made.iterdir() if path.name != "bundle.json")
    for name in ("bundle.json", FILE_NAME):  # a list of an earlier training is not of this one
        storage.remove(storage.join(out, name))
    for name in (*names, "bundle.json"):
        _copy(str(made / name), storage.join(out, name))
    return replace(bundle, folder=out)


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
    decisions: tuple[str, ...] = ()  # folders of ledgers, whose decisions become labels
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
    check_out(recalibration.out)
    bundle = load_bundle(recalibration.bundle)
    _check_target(bundle, recalibration.out)
    ledger = read_decisions(recalibration.decisions) if recalibration.decisions else None
    rules = LabelRules(masked=bundle.masked_values, bare_files=ledger is not None)
    rows = read_labels_by(recalibration.labels, bundle.schema, recalibration.groups, rules).photos
    photos = choose_rows(rows, recalibration.splits, "val")
    if ledger is None:
        check_sample(photos)  # before the photos are looked at
    else:
        photos = without_bare_rows(photos, ledger)  # a whole night's manifest may be among the files
        if not len(photos):
            files = ", ".join(map(mask_uri, recalibration.labels))
            raise UsageError(f"nothing in {files} is labelled, and no decision is on an item that stands there")
    scores = score(bundle.folder, photos, recalibration.out.rstrip("/") + ".work")
    lines: list[str] = []
    corrections = None
    if ledger is not None:
        assert scores.sha256s is not None, "decisions bind to the bytes of a photo"
        corrections = correct_sample(photos, scores.sha256s.tolist(), ledger, rows)
        photos, lines = corrections.photos, correction_lines(corrections)
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
    before = replace(fitted.calibration, pooling=bundle.calibration.pooling)
    fitted = fitted._replace(calibration=with_pooling(before, scores.logits, photos))
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
        _copy(bundle.file(name), storage.join(recalibration.out, name))
    _copy_card(bundle.folder, recalibration, len(photos))
    calibrated = {"command": recalibration.command, "tagger": __version__, "photos": len(photos)}
    if corrections is not None:
        calibrated["decisions"] = corrections.total
    copy = replace(
        bundle,
        copies=None,
        calibration=fitted.calibration,
        provenance=bundle.provenance | {"calibrated": calibrated},
        metrics=bundle.metrics | {"calibrated": figures},
    )
    if unread:
        lines.append(listed(f"of {len(ok)} photos could not be read and are left out", unread))
    if fitted.calibration.pooling:
        exponents = ", ".join(f"{name} {value:+.2f}" for name, value in fitted.calibration.pooling.items())
        lines.append(f"several photos of one item, 0 as sure as one photo, 1 as independent ones: {exponents}")
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


def forget(work: Path) -> None:
    """Throw away the checkpoints in `work`; the pack of photos stays."""
    for name in (CLAIM, *FILES):
        (work / name).unlink(missing_ok=True)


def _claim(work: Path, config: TrainConfig, photos: LabelledPhotos, pack: PhotoPack, initial: Path | None) -> None:
    """Make `work` this training's; raises `UsageError` where it holds the checkpoints of another one."""
    options = {k: v for k, v in provenance(config).items() if k not in ("device", "workers")}
    key = {
        **{name: digest(value) if isinstance(value, dict) else value for name, value in options.items()},
        "schema": digest(photos.schema.to_dict()),
        "labels": digest([photos.uris, photos.splits, hashlib.sha256(photos.allowed.tobytes()).hexdigest()]),
        "photos": pack.key,
        "init": initial and sha256_of(str(initial)),
    }
    key = json.loads(json.dumps(key))  # tuples become lists, as the file has them
    file = work / CLAIM
    if file.exists():
        before = json.loads(file.read_text())
        differences = [name for name in key if before.get(name) != key[name]]
        if differences:
            raise UsageError(
                f"{work} holds another training ({', '.join(differences)} differ): start anew with --no-resume, or "
                "choose another --out"
            )
    storage.write_bytes(str(file), (json.dumps(key, indent=1) + "\n").encode())


def _named(figures: dict[str, Any]) -> dict[str, Any]:
    names = source_names(figures)
    return {names[source]: by_attribute for source, by_attribute in figures.items()}
