"""`tagger train` and what follows it, from labels to a bundle that tags, with a drawn catalogue."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fakes import read_tags, run_python, tag
from PIL import Image

from tagger.cli.main import cli
from tagger.errors import SchemaError, UsageError
from tagger.ledger import Decision, append, decision_id
from tagger.model.bundle import load_bundle
from tagger.schema import load_schema
from tagger.source.fetch import Fetched, PhotoSource
from tagger.training import recipe as recipe_module
from tagger.training.prepare import Preparation, prepare
from tagger.training.recipe import check_sample

BACKBONE = "test_efficientnet"


def tagger(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def train_options(start_weights: Path) -> list[str | Path]:
    options: list[str | Path] = ["--schema", "womens-32", "--init", start_weights, "--backbone", BACKBONE]
    options += ["--mixup", "0.2", "--drop-path", "0.1", "--dropout", "0.25", "--weight-decay", "0.04"]
    return [*options, "--stages", "2@32", "--batch-size", "8"]


def train_command(folder: Path, out: Path, start_weights: Path) -> list[str | Path]:
    """The command of the fixture `trained`, into another folder."""
    command: list[str | Path] = ["train", folder / "labels.csv", "--out", out, "--decisions", folder / "decisions"]
    return [*command, *train_options(start_weights)]


def curve(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (Path(f"{out}.work") / "curve.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def decided_rows(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """A row of train and one of val that the file calls plain."""
    plain = [row for row in rows if row["pattern"] == "none" and not row["image"].endswith("cut.jpg")]
    return [next(row for row in plain if row["split"] == split) for split in ("train", "val")]


def decision(row: dict[str, str], attribute: str, value: str) -> Decision:
    sha256 = hashlib.sha256(Path(row["image"]).read_bytes()).hexdigest()
    content = (row["item_id"], sha256, attribute, "set", value)
    return Decision(decision_id(content), *content, None, "bundle", "mina", "2026-01-31T12:00:00Z")


@pytest.fixture(scope="module")
def spied() -> Iterator[list[str]]:
    """The URIs of all photos that anything reads."""
    read: list[str] = []
    original = PhotoSource.__call__

    def call(self: PhotoSource, uri: str) -> Fetched:
        read.append(uri)
        return original(self, uri)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhotoSource, "__call__", call)
        yield read


@pytest.fixture(scope="module")
def trained(
    womens_labels: Path,
    start_weights: Path,
    spied: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    rows_of: Callable,
    write_labels: Callable,
) -> tuple[Path, Result, list[str], list[str]]:
    """Two epochs on womens-32: the bundle, what the command said, the photos it read, the splits calibrated on.

    The photos of test are not on the disk, one photo of train does not open, and people decided the patterns of one
    row of train and of one of val.
    """
    folder = tmp_path_factory.mktemp("train")
    rows = rows_of(womens_labels)
    (folder / "cut.jpg").write_bytes(Path(rows[0]["image"]).read_bytes()[:900])
    broken = next(row for row in rows if row["split"] == "train")
    broken["image"] = str(folder / "cut.jpg")
    for row in rows:
        if row["split"] == "test":
            row["image"] = str(folder / "not-on-the-disk.jpg")
    write_labels(folder / "labels.csv", rows)
    append(str(folder / "decisions"), [decision(row, "pattern", "flower") for row in decided_rows(rows)])
    out = folder / "bundle"
    calibrated_on: list[str] = []
    fit = recipe_module.fit_calibration

    def spy(logits: Any, photos: Any, *rest: Any, **options: Any) -> Any:
        calibrated_on.extend(photos.splits)
        return fit(logits, photos, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe_module, "fit_calibration", spy)
        result = tagger(*train_command(folder, out, start_weights))
    return out, result, list(spied), calibrated_on


def test_training_ends_in_a_bundle_that_tags(
    trained: tuple[Path, Result, list[str], list[str]], womens_labels: Path, tmp_path: Path
) -> None:
    out, result, _, _ = trained
    assert result.exit_code == 0, result.output
    bundle = load_bundle(str(out))
    assert result.stdout.strip() == f"bundle {bundle.bundle_id}, calibration {bundle.calibration_id}: {out}"
    assert bundle.schema == load_schema("womens-32")
    assert bundle.input_spec.size == 32
    assert set(bundle.files) == {"model.safetensors", "model.onnx", "descriptor.safetensors"}
    tag(womens_labels, str(out), tmp_path / "out")
    rows = read_tags(tmp_path / "out")
    assert len(rows) == len(womens_labels.read_text().splitlines()) - 1
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["garment"] for row in rows} <= {"top", "bottom"}
    assert len({tuple(row["scores"]) for row in rows}) > 30  # the graph looks at the photos


def test_training_logs_a_curve(trained: tuple[Path, Result, list[str], list[str]]) -> None:
    assert [(line["epoch"], line["size"]) for line in curve(trained[0])] == [(1, 32), (2, 32)]


def test_taps_are_in_the_bundle(womens_labels: Path, tmp_path: Path, start_weights: Path) -> None:
    out = tmp_path / "b"
    options = [*train_options(start_weights), "--stages", "1@32", "--tap", 2, "--tap", 3, "--no-label-errors"]
    result = tagger("train", womens_labels, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert load_bundle(str(out)).network.taps == (2, 3)


def test_photo_that_does_not_open_is_named_and_counted(trained: tuple[Path, Result, list[str], list[str]]) -> None:
    said = trained[1].stderr
    assert "1 of 3" in said
    assert "photos could not be read and are left out" in said
    assert "cut.jpg (truncated:" in said


def test_attribute_without_labels_is_named_and_always_reviewed(
    trained: tuple[Path, Result, list[str], list[str]],
) -> None:
    out, result, _, _ = trained
    assert "detail: no photo is labelled; nothing is learned of it" in result.stderr
    assert "detail: always reviewed: nothing could be learned of it" in result.stderr
    assert all(by_name["detail"] is None for by_name in load_bundle(str(out)).calibration.thresholds.values())


def test_nothing_but_train_and_val_is_read(
    trained: tuple[Path, Result, list[str], list[str]], womens_labels: Path, rows_of: Callable
) -> None:
    rows = rows_of(womens_labels)
    read, first = set(trained[2]), next(row for row in rows if row["split"] == "train")
    expected = {row["image"] for row in rows if row["split"] in ("train", "val")} - {first["image"]}
    missing = str(trained[0].parent / "not-on-the-disk.jpg")  # of test: looked for, to compare, and not there
    assert read == expected | {str(trained[0].parent / "cut.jpg"), missing}
    assert any(row["split"] == "test" for row in rows)


def test_nothing_but_val_is_calibrated_on(
    trained: tuple[Path, Result, list[str], list[str]], womens_labels: Path, rows_of: Callable
) -> None:
    rows = rows_of(womens_labels)
    assert trained[3] == ["val"] * sum(row["split"] == "val" for row in rows)
    (out,) = Path(f"{trained[0]}.work").glob("*.tags")
    assert {row["item_id"] for row in read_tags(out)} == {row["item_id"] for row in rows if row["split"] == "val"}


def test_provenance_says_how_it_was_made(trained: tuple[Path, Result, list[str], list[str]]) -> None:
    provenance = load_bundle(str(trained[0])).provenance
    assert provenance["command"].startswith("tagger ")
    training = provenance["training"]
    assert training["stages"] == [{"epochs": 2, "size": 32}]
    assert [training[name] for name in ("mixup", "drop_path", "dropout", "weight_decay")] == [0.2, 0.1, 0.25, 0.04]
    assert provenance["photos"]["train"] > provenance["photos"]["val"] > 0


DYING = {
    "in the second epoch": "t._set_lr = lambda o, c, step, n: (step >= 3 and die(), lr(o, c, step, n))",
    "between checkpoint and log": "write = t._write_curve; "
    "t._write_curve = lambda work, curve: (curve and die(), write(work, curve))",
}
"""Where a process ends itself by SIGKILL."""


@pytest.mark.parametrize("moment", DYING)
def test_killed_training_resumes_to_the_same_curve(
    trained: tuple[Path, Result, list[str], list[str]], start_weights: Path, tmp_path: Path, moment: str
) -> None:
    """The process is killed after its first epoch; the same command then goes on from there."""
    out = tmp_path / "bundle"
    command = train_command(trained[0].parent, out, start_weights)
    code = "import os, tagger.training.train as t; die = lambda: os.kill(os.getpid(), 9); lr = t._set_lr; "
    killed = run_python(f"{code}{DYING[moment]}; from tagger.cli.main import main; main()", *command, timeout=400)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (Path(f"{out}.work") / "checkpoint.safetensors").exists()
    assert len(curve(out)) == (1 if moment == "in the second epoch" else 0)
    assert not out.exists()
    with pytest.MonkeyPatch.context() as patch:  # what follows was tested; what counts here is the curve
        patch.setattr(recipe_module, "_list_label_errors", _stop_here)
        assert isinstance(tagger(*command).exception, _Enough)
    assert curve(out) == curve(trained[0])


class _Enough(Exception):
    pass


def _stop_here(*_: object) -> None:
    raise _Enough


def test_work_folder_of_another_training_is_refused(
    trained: tuple[Path, Result, list[str], list[str]], start_weights: Path
) -> None:
    command = train_command(trained[0].parent, trained[0], start_weights)
    command[command.index("2@32")] = "3@32"
    assert "holds another training (stages differ): start anew with --no-resume" in refused(*command)
    assert len(curve(trained[0])) == 2


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--device", "cuda:99", "--device cuda:99: this machine has"),
        ("--device", "gpu", "--device gpu: cpu, cuda or cuda:N"),
        ("--stages", "1@2048", "at 32 to 1024 pixels, not '1@2048'"),
    ],
)
def test_what_the_machine_or_the_bundle_cannot_do_is_refused_before_a_photo_is_read(
    womens_labels: Path, start_weights: Path, tmp_path: Path, option: str, value: str, text: str
) -> None:
    command = ["train", womens_labels, "--out", tmp_path / "bundle", *train_options(start_weights), option, value]
    assert text in refused(*command)
    assert list(tmp_path.iterdir()) == []


def test_seed_below_zero_is_no_seed(tmp_path: Path) -> None:
    for command in ("train", "calibrate"):
        result = tagger(
            command, "labels.csv", "--bundle" if command == "calibrate" else "--name", "b", "--out", "o", "--seed", "-1"
        )
        assert result.exit_code == 2
        assert "--seed" in result.output


def test_training_begins_anew_where_it_may_not_resume(label: Callable, tmp_path: Path, start_weights: Path) -> None:
    from tagger.training.data import PhotoPack
    from tagger.training.recipe import _claim, forget
    from tagger.training.train import TrainConfig

    photos = label(["top,,", "shoes,,"], splits=["train", "val"])
    pack = PhotoPack(np.zeros((2, 8, 8, 3), np.uint8), np.ones(2, dtype=bool), (), ("a", "b"), "key")
    _claim(tmp_path, TrainConfig(), photos, pack, start_weights)
    for name in ("checkpoint.safetensors", "curve.jsonl", "photos-key.uint8"):
        (tmp_path / name).write_bytes(b"")
    _claim(tmp_path, TrainConfig(), photos, pack, start_weights)
    assert (tmp_path / "checkpoint.safetensors").exists()
    other = replace(pack, key="photos that were written again")
    with pytest.raises(UsageError, match=r"holds another training \(photos differ\)"):
        _claim(tmp_path, TrainConfig(), photos, other, start_weights)
    forget(tmp_path)
    _claim(tmp_path, TrainConfig(), photos, other, start_weights)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos-key.uint8", "training.json"]


def test_people_s_words_are_trained_and_calibrated_on_and_written_down(
    trained: tuple[Path, Result, list[str], list[str]],
) -> None:
    out, result, _, _ = trained
    assert "2 decisions are labels now: 2 set; 2 of them overrule a labels file" in result.stderr
    report = json.loads((out / "data_report.json").read_text())
    assert report["decisions"]["applied"] == {"pattern": {"set": 2, "overruled": 2}}
    assert load_bundle(str(out)).provenance["labels"]["decisions"] == report["decisions"]["applied"]
    assert "| pattern | 2 | 0 | 0 | 2 |" in (out / "data_report.md").read_text()


def test_likely_label_errors_are_listed_beside_the_bundle(
    trained: tuple[Path, Result, list[str], list[str]], rows_of: Callable
) -> None:
    out, result, _, _ = trained
    lines = (out / "label_errors.csv").read_text("utf-8-sig").splitlines()
    assert lines[0].startswith("rank,item_id,image_uri,image_sha256,attribute,label,prediction,confidence")
    said = f"{len(lines) - 1} labels are likely wrong" if len(lines) > 1 else "no label is likely wrong"
    assert said in result.stderr
    ids = {row["item_id"] for row in rows_of(out.parent / "labels.csv") if row["split"] in ("train", "val")}
    assert {line.split(",")[1] for line in lines[1:]} <= ids


# ------------------------------------------------------------------------------------- bundles calibrated again


def calibrate_labels(catalogue: Path, rows_of: Callable, write_labels: Callable, file: Path, copies: int = 2) -> Path:
    """The drawn catalogue as a shop's sample without splits, each photo twice: 40 photos are too few."""
    rows = []
    for row in rows_of(catalogue):
        for copy in range(copies):
            rows.append({k: v for k, v in row.items() if k != "split"} | {"item_id": f"{row['item_id']}-{copy}"})
    file.parent.mkdir(parents=True, exist_ok=True)
    written: Path = write_labels(file, rows)
    return written


def test_calibrated_bundle_has_the_same_weights_and_decides_anew_without_inference(
    trained: tuple[Path, Result, list[str], list[str]],
    womens_labels: Path,
    tmp_path: Path,
    rows_of: Callable,
    write_labels: Callable,
) -> None:
    labels = calibrate_labels(womens_labels, rows_of, write_labels, tmp_path / "sample.csv")
    (trained[0] / "MODEL_CARD.md").write_text("# A card\n")
    out = tmp_path / "spring"
    result = tagger("calibrate", labels, "--bundle", trained[0], "--out", out)
    assert result.exit_code == 0, result.output
    before, after = load_bundle(str(trained[0])), load_bundle(str(out))
    assert after.bundle_id == before.bundle_id
    assert after.calibration_id != before.calibration_id
    for name in after.files:
        assert (out / name).read_bytes() == (trained[0] / name).read_bytes()
        assert not (out / name).samefile(trained[0] / name)
    assert (out / "MODEL_CARD.md").read_text().startswith("# A card\n\n## Calibrated again")
    assert after.provenance["calibrated"]["photos"] == len(labels.read_text().splitlines()) - 1
    assert after.provenance["training"] == before.provenance["training"]
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == list(before.schema.by_name)
    tag(womens_labels, str(trained[0]), tmp_path / "first")
    report = tag(womens_labels, str(out), tmp_path / "second", reuse=str(tmp_path / "first"))
    assert report.summary["inferred"] == 0


@pytest.fixture
def sample(tmp_path: Path, catalogue: Path, rows_of: Callable, write_labels: Callable) -> list[dict[str, str]]:
    """Eighty rows of the drawn catalogue with absolute paths and no splits."""
    rows = rows_of(catalogue / "labels.csv")
    rows = [row | {"image": str(catalogue / row["image"])} for row in rows]
    write_labels(tmp_path / "all.csv", rows)
    doubled: list[dict[str, str]] = rows_of(
        calibrate_labels(tmp_path / "all.csv", rows_of, write_labels, tmp_path / "s.csv")
    )
    return doubled


def refused(*arguments: str | Path) -> str:
    result = tagger(*arguments)
    assert isinstance(result.exception, UsageError), result.output
    return str(result.exception)


def test_temperature_of_an_attribute_without_labels_is_kept(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    labels = write_labels(tmp_path / "sample.csv", [row | {"colour": ""} for row in sample])
    data = json.loads((Path(dummy_bundle) / "bundle.json").read_text())
    data["calibration"]["temperatures"] = {"colour": 1.7, "pattern": 1.7}
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(data))
    result = tagger("calibrate", labels, "--bundle", tmp_path / "bundle", "--out", tmp_path / "new", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["temperatures"]["colour"] == 1.7
    assert said["temperatures"]["pattern"] != 1.7
    assert said["thresholds"]["0.95"]["colour"] is None
    assert "colour: always reviewed: no photo is labelled" in result.stderr


def test_items_with_several_photos_in_a_sample_calibrate_the_pooling(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    rows = [row | {"item_id": f"item {i // 2}"} for i, row in enumerate([*sample, *sample])]  # 80 items
    labels = write_labels(tmp_path / "sample.csv", rows)
    result = tagger("calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "new")
    assert result.exit_code == 0, result.output
    pooling = load_bundle(str(tmp_path / "new")).calibration.pooling
    assert "category" in pooling
    assert all(-1 <= exponent <= 1 for exponent in pooling.values())
    assert f"category {pooling['category']:+.2f}" in result.stdout
    assert load_bundle(dummy_bundle).calibration.pooling == {}


def test_what_people_decided_is_calibrated_on_over_what_the_file_says(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    labels = write_labels(tmp_path / "labels.csv", sample)
    wrong = [row | {"colour": "red" if row["colour"] != "red" else "blue"} for row in sample]
    bare = [{"item_id": row["item_id"], "image": row["image"]} for row in sample]
    append(str(tmp_path / "decisions"), [decision(row, "colour", row["colour"]) for row in sample if row["colour"]])
    named = sum(bool(row["colour"]) for row in sample)
    assert named > 60
    found = {}
    for name, rows in (("wrong", wrong), ("bare", bare)):
        file = write_labels(tmp_path / f"{name}.csv", rows)
        command = ["calibrate", file, "--bundle", dummy_bundle, "--decisions", tmp_path / "decisions"]
        result = tagger(*command, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert f"{named} decisions are labels now: {named} set" in result.stdout
        found[name] = load_bundle(str(tmp_path / name))
        assert found[name].provenance["calibrated"]["decisions"] == named
        assert found[name].provenance["calibrated"]["photos"] == len(sample)
    assert tagger("calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "right").exit_code == 0
    found["right"] = load_bundle(str(tmp_path / "right"))
    result = tagger("calibrate", tmp_path / "wrong.csv", "--bundle", dummy_bundle, "--out", tmp_path / "said")
    assert result.exit_code == 0
    found["said"] = load_bundle(str(tmp_path / "said"))
    shares = {name: [f["colour"]["right"] for f in b.metrics["calibrated"].values()] for name, b in found.items()}
    assert shares["wrong"] == shares["bare"] == shares["right"]
    assert shares["said"] != shares["right"]
    temperatures = {b.calibration.temperatures["colour"] for name, b in found.items() if name != "said"}
    assert len(temperatures) == 1


def test_sample_that_nobody_labelled_or_decided_on_is_refused(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    file = write_labels(tmp_path / "bare.csv", [{"item_id": row["item_id"], "image": row["image"]} for row in sample])
    command = ["calibrate", file, "--bundle", dummy_bundle, "--out", tmp_path / "new"]
    assert "has no column of the schema" in refused(*command)
    append(str(tmp_path / "decisions"), [decision(sample[0] | {"item_id": "another"}, "colour", "red")])
    said = refused(*command, "--decisions", tmp_path / "decisions")
    assert said == f"nothing in {file} is labelled, and no decision is on an item that stands there"
    append(str(tmp_path / "decisions"), [decision(sample[0], "colour", "red")])
    said = refused(*command, "--decisions", tmp_path / "decisions")
    assert said.startswith("too few labels: at most 1 photos are labelled with one attribute")
    assert not (tmp_path / "new").exists()


def test_rows_of_val_are_calibrated_on_where_there_are_splits(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    rows = [row | {"split": "val" if i % 8 else "train"} for i, row in enumerate(sample)]
    labels = write_labels(tmp_path / "sample.csv", rows)
    append(str(tmp_path / "decisions"), [decision(row, "colour", "red") for row in rows[:2]])  # of train, of val
    command = ["calibrate", labels, "--bundle", dummy_bundle, "--decisions", tmp_path / "decisions"]
    result = tagger(*command, "--out", tmp_path / "new")
    assert result.exit_code == 0
    assert "1 decisions are labels now: 1 set" in result.stdout
    left = f"of other splits, or of rows that are left out: {rows[0]['item_id']} (colour)"
    assert f"1 decisions left aside, on photos {left}" in result.stdout
    n_val = sum(row["split"] == "val" for row in rows)
    assert load_bundle(str(tmp_path / "new")).provenance["calibrated"]["photos"] == n_val
    assert "it has train, val" in refused(
        "calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "other", "--split", "test"
    )


def test_older_bundle_learns_to_tell_unfamiliar_photos_where_that_is_asked_for(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    labels = write_labels(tmp_path / "sample.csv", sample)
    before = load_bundle(dummy_bundle)
    assert tagger("calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "plain").exit_code == 0
    plain = load_bundle(str(tmp_path / "plain"))
    assert plain.bundle_id == before.bundle_id
    assert plain.calibration.gate is None
    command = ["calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "gated", "--add-descriptor"]
    assert tagger(*command).exit_code == 0
    gated = load_bundle(str(tmp_path / "gated"))
    assert gated.bundle_id != before.bundle_id
    assert gated.calibration.gate is not None
    assert gated.calibration.gate.kinds == ("sample",)
    tag(labels, str(tmp_path / "gated"), tmp_path / "out")
    rows = read_tags(tmp_path / "out")
    assert len(rows[0]["descriptor"]) == 13  # the dummy's twelve features and what they leave over
    assert not any("unfamiliar_photo" in row["review_reasons"] for row in rows)

    assert tagger("calibrate", labels, "--bundle", tmp_path / "gated", "--out", tmp_path / "again").exit_code == 0
    assert load_bundle(str(tmp_path / "again")).bundle_id == gated.bundle_id


def test_too_few_labels_are_refused(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    labels = write_labels(tmp_path / "sample.csv", sample[:59])
    said = refused("calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "new")
    assert said.startswith("too few labels: at most 59 photos are labelled with one attribute")
    assert "label at least 200 photos drawn at random" in said
    one_brand = write_labels(tmp_path / "brand.csv", [row | {"brand": "x"} for row in sample])
    assert "photos of 1 groups" in refused("calibrate", one_brand, "--bundle", dummy_bundle, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_unknown_value_is_refused_with_its_row(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    sample[4]["colour"] = "turquoise"
    labels = write_labels(tmp_path / "sample.csv", sample)
    said = refused("calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "new")
    assert "sample.csv, row 5: colour has no value 'turquoise'" in said


def test_photos_none_of_which_can_be_read_are_refused(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    labels = write_labels(tmp_path / "sample.csv", [row | {"image": "gone.jpg"} for row in sample])
    said = refused("calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "new")
    assert said.startswith(f"none of the {len(sample)} photos could be read; the first is ")
    assert "gone.jpg" in said
    said = refused("evaluate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "report")
    assert "gone.jpg: not_found" in said


def test_unreadable_photos_of_a_sample_are_named(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    sample[7]["image"] = "gone.jpg"
    labels = write_labels(tmp_path / "sample.csv", sample)
    result = tagger("calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "new")
    assert f"1 of {len(sample)} photos could not be read and are left out: " in result.output
    assert "gone.jpg" in result.output


def test_new_bundle_takes_the_place_of_nothing_else(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable, womens_labels: Path
) -> None:
    from tagger.model.bundle import save_dummy_bundle

    labels = write_labels(tmp_path / "sample.csv", sample)
    assert "is the bundle itself" in refused("calibrate", labels, "--bundle", dummy_bundle, "--out", dummy_bundle)
    save_dummy_bundle(load_schema("womens-32"), str(tmp_path / "other"))
    said = refused("calibrate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "other")
    assert "holds another bundle" in said


@pytest.mark.parametrize("place", ["file", "file/bundle", "/proc/bundle"])
@pytest.mark.parametrize("command", ["train", "calibrate", "evaluate"])
def test_out_that_can_be_no_folder_is_refused_before_the_work(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable, command: str, place: str
) -> None:
    labels = write_labels(tmp_path / "sample.csv", sample)
    (tmp_path / "file").touch()
    bundle = [] if command == "train" else ["--bundle", dummy_bundle]
    said = refused(command, labels, *bundle, "--out", tmp_path / place)
    assert said.startswith(f"cannot write to --out {tmp_path / place}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "file", "s.csv", "sample.csv"]


def test_a_file_that_is_named_twice_is_refused(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    labels = write_labels(tmp_path / "sample.csv", sample)
    again = labels.parent / "." / ".." / labels.parent.name / labels.name
    for command in ("calibrate", "evaluate"):
        said = refused(command, labels, again, "--bundle", dummy_bundle, "--out", tmp_path / "out")
        assert said == f"{again} is named twice: its rows would count twice"


def test_photos_of_labels_may_lie_on_the_web(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    folder = Path(os.path.commonpath([row["image"] for row in sample]))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for row in sample:
            row["image"] = f"http://127.0.0.1:{server.server_port}/{Path(row['image']).relative_to(folder)}"
        labels = write_labels(tmp_path / "sample.csv", sample)
        command = ["--bundle", dummy_bundle, "--out"]
        said = refused("evaluate", labels, *command, tmp_path / "closed")
        assert "http(s) photos are fetched only with --allow-http" in said
        assert "not on the public internet" in refused(
            "evaluate", labels, *command, tmp_path / "public", "--allow-http"
        )
        result = tagger("evaluate", labels, *command, tmp_path / "open", "--allow-private-http", "--json")
        assert json.loads(result.stdout)["failed"] == 0
        assert tagger("calibrate", labels, *command, tmp_path / "new", "--allow-private-http").exit_code == 0
        originals = [row for row in sample if row["item_id"].endswith("-0")]
        first = originals[0]["item_id"]
        rows = [row | {"split": "val" if row["item_id"] == first else "train"} for row in originals]
        wanted = Preparation(
            labels=[str(write_labels(tmp_path / "split.csv", rows))],
            schema=load_schema(),
            groups=(),
            work=tmp_path / "work",
            allow_private_http=True,
        )
        assert prepare(wanted, lambda *_: None).pack.opened.all()
        server.shutdown()


# -------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_is_resumed_and_infers_no_photo_twice(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    sample[3]["image"] = "gone.jpg"
    labels = write_labels(tmp_path / "sample.csv", sample)
    command = ["evaluate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "report"]
    result = tagger(*command)
    assert result.exit_code == 0, result.output
    assert "# How right is dummy?" in result.stdout
    assert (tmp_path / "report" / "report.html").exists()
    data = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (data["photos"], data["failed"]) == (len(sample) - 1, 1)
    assert data["failures"][0]["error"].startswith("not_found")
    again = tagger(*command, "--json")
    assert json.loads(again.stdout) == data
    assert scoring(tmp_path / "report") == (0, len(sample) - 1)

    new = tmp_path / "calibrated"
    assert tagger("calibrate", labels, "--bundle", dummy_bundle, "--out", new).exit_code == 0
    result = tagger("evaluate", labels, "--bundle", new, "--out", tmp_path / "report", "--json")
    assert json.loads(result.stdout)["bundle"]["calibration_id"] == load_bundle(str(new)).calibration_id
    assert scoring(tmp_path / "report") == (0, len(sample) - 1)


def scoring(report: Path) -> tuple[int, int]:
    """Photos inferred and photos reused by the last command that scored into the folder."""
    (out,) = report.glob("*.tags")
    summary = json.loads((out / "summary.json").read_text())
    return summary["inferred"], summary["reused"]


def test_photo_that_has_changed_or_can_be_read_now_is_scored_anew(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    for number, row in enumerate(sample):
        copy = tmp_path / f"{number}.jpg"
        shutil.copyfile(row["image"], copy)
        row["image"] = str(copy)
    (tmp_path / "3.jpg").unlink()
    labels = write_labels(tmp_path / "sample.csv", sample)
    command = ["evaluate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "report", "--json"]
    assert json.loads(tagger(*command).stdout)["failed"] == 1
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "3.jpg")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "0.jpg")
    assert json.loads(tagger(*command).stdout)["failed"] == 0
    assert scoring(tmp_path / "report") == (2, len(sample) - 2)


def test_report_folder_may_be_spelled_anew_and_labels_may_change_after_a_stop(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = write_labels(tmp_path / "sample.csv", sample)
    command = ["evaluate", labels, "--bundle", dummy_bundle, "--json", "--out"]
    assert tagger(*command, "report").exit_code == 0
    (out,) = (tmp_path / "report").glob("*.tags")
    write_labels(tmp_path / "sample.csv", sample[5:])
    (out / "_SUCCESS").unlink()  # as if the first one had been stopped
    result = tagger(*command, "./report/")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["photos"] == len(sample) - 5
    assert scoring(tmp_path / "report") == (0, len(sample) - 5)
    write_labels(tmp_path / "sample.csv", sample)
    result = tagger(*command, tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert scoring(tmp_path / "report")[1] >= len(sample) - 5


def test_evaluation_takes_test_unless_another_split_is_asked_for(
    dummy_bundle: str, catalogue: Path, tmp_path: Path, rows_of: Callable
) -> None:
    splits = [row["split"] for row in rows_of(catalogue / "labels.csv")]
    command = ["evaluate", catalogue / "labels.csv", "--bundle", dummy_bundle, "--json", "--out"]
    data = json.loads(tagger(*command, tmp_path / "a").stdout)
    assert (data["photos"], data["splits"]) == (splits.count("test"), ["test"])
    data = json.loads(tagger(*command, tmp_path / "a", "--split", "val", "--split", "test").stdout)
    assert (data["photos"], data["splits"]) == (splits.count("test") + splits.count("val"), ["test", "val"])


def test_evaluation_at_another_target_uses_its_thresholds(dummy_bundle: str, catalogue: Path, tmp_path: Path) -> None:
    command = ["evaluate", catalogue / "labels.csv", "--bundle", dummy_bundle, "--json", "--out", tmp_path / "a"]
    assert json.loads(tagger(*command, "--target-precision", "0.9").stdout)["thresholds"]["colour"] == 0.4
    assert "--target-precision 0.5" in refused(*command, "--target-precision", "0.5")


def test_values_that_a_training_left_out_are_unknown_to_evaluation(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    labels = write_labels(tmp_path / "sample.csv", [row | {"colour": "turquoise"} for row in sample[:4]])
    command = ["evaluate", labels, "--out", tmp_path / "report", "--json", "--bundle"]
    assert isinstance(tagger(*command, dummy_bundle).exception, SchemaError)
    data = json.loads((Path(dummy_bundle) / "bundle.json").read_text())
    data["provenance"]["masked_values"] = {"colour": ["turquoise"]}
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(data))
    result = tagger(*command, tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["photos"] == 4


def test_labels_without_a_label_are_refused(
    dummy_bundle: str, sample: list[dict[str, str]], tmp_path: Path, write_labels: Callable
) -> None:
    empty = [{k: (v if k in ("item_id", "image") else "") for k, v in row.items()} for row in sample]
    labels = write_labels(tmp_path / "sample.csv", empty)
    assert "has a label" in refused("evaluate", labels, "--bundle", dummy_bundle, "--out", tmp_path / "report")


def test_sample_is_enough_with_sixty_labels_of_one_attribute_in_five_groups(label: Callable) -> None:
    groups = [f"g{i % 5}" for i in range(60)]
    check_sample(label([",,dark"] * 60, groups=groups))
    with pytest.raises(UsageError, match="at most 59 photos"):
        check_sample(label([",,dark"] * 59 + ["top,,"], groups=groups))
    with pytest.raises(UsageError, match="photos of 4 groups"):
        check_sample(label([",,dark"] * 60, groups=[f"g{i % 4}" for i in range(60)]))
    with pytest.raises(UsageError, match="at most 30 photos"):
        check_sample(label([",,dark"] * 60, groups=groups, sources=["a"] * 30 + ["b"] * 30))
