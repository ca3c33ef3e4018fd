"""Figures of a tiny table worked out by hand, the way to and from a run, and the report's three files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fakes import DictFetcher, draw_photo, tag

from tagger.errors import UsageError
from tagger.model.confidence import Calibration
from tagger.schema import Schema
from tagger.training.calibrate import fit_calibration
from tagger.training.data import LabelledPhotos
from tagger.training.evaluate import Evaluation, evaluate, measure
from tagger.training.report import ReportHead, markdown, report_data, write_report
from tagger.training.scores import read_scores, write_split_manifest
from tagger.training.sources import choose_rows, source_names

THRESHOLDS = Calibration(thresholds={"0.95": {"kind": 0.7, "sleeve": 0.6, "tone": 0.8}})
SHOP = "shop/labels.csv"


@pytest.fixture
def table(label: Callable, say: Callable) -> tuple[npt.NDArray[np.float32], LabelledPhotos]:
    """Six photos of three contributors; what the model says of each stands beside its label."""
    rows = [
        ("top,short,dark", {"top": 0.9, "short": 0.9, "dark": 0.9}),  # all right, all accepted
        ("top,long,dark", {"top": 0.8, "short": 0.9, "dark": 0.6}),  # sleeve wrong and accepted at 0.72
        ("top|trousers,,light", {"trousers": 0.9, "light": 0.7}),  # a partial label is satisfied
        ("trousers,,dark", {"top": 0.95, "short": 0.9, "light": 0.9}),  # a sleeve on trousers, accepted
        ("top,long,", {"shoes": 0.97, "trousers": 0.02, "long": 0.9}),  # no sleeve tag where there is a label
        (",,", {"shoes": 0.4, "long": 0.9, "dark": 0.9}),  # nothing is known
    ]
    photos = label([text for text, _ in rows], groups=["ann", "ann", "bob", "bob", "cho", "cho"])
    return say([said for _, said in rows]), photos


# ----------------------------------------------------------------------------------------------------- figures


def test_figures_of_a_category_by_hand(table: tuple[Any, LabelledPhotos]) -> None:
    cell = measure(*table, THRESHOLDS, "0.95")[SHOP]["kind"]
    assert (cell["right"], cell["n"], cell["groups"]) == (0.6, 5, 3)  # rows 0, 1, 2 of 0 to 4
    assert (cell["strict"], cell["n_strict"]) == (0.5, 4)  # rows 0 and 1; row 2 has two values
    assert cell["majority"] == 0.8  # 'top' satisfies rows 0, 1, 2 and 4
    assert (cell["accepted"], cell["precision"], cell["n_accepted"]) == (1.0, 0.6, 5)
    # of single-valued labels: top 2·2/(3 predicted + 3 true) = 2/3, trousers never said: 0
    assert cell["macro_f1"] == pytest.approx(1 / 3, abs=1e-4)
    assert cell["low"] == 0.0  # cho alone: nothing right
    assert cell["high"] == 1.0  # ann alone


def test_figures_of_a_dependent_attribute_by_hand(table: tuple[Any, LabelledPhotos]) -> None:
    cell = measure(*table, THRESHOLDS, "0.95")[SHOP]["sleeve"]
    assert (cell["right"], cell["n"]) == (0.3333, 3)  # row 0; 1 is wrong, 4 has no tag
    assert cell["accepted"] == 0.6667  # rows 0 and 1 of the labelled 0, 1 and 4
    assert (cell["precision"], cell["n_accepted"]) == (0.3333, 3)  # 0 right; 1 and the sleeve of trousers wrong


def test_attribute_that_a_file_does_not_label_has_no_figures(label: Callable, say: Callable) -> None:
    photos = label(["top,,"] * 2, sources=["a/labels.csv", "b/labels.csv"])
    assert {source: set(cells) for source, cells in measure(say([{}] * 2), photos, THRESHOLDS, "0.95").items()} == {
        "a/labels.csv": {"kind"},
        "b/labels.csv": {"kind"},
    }


def test_share_of_photos_with_everything_right(table: tuple[Any, LabelledPhotos]) -> None:
    whole = evaluate(*table, THRESHOLDS, "0.95").sources["shop"]["all_right"]
    assert (whole["right"], whole["n"]) == (0.4, 5)  # rows 0 and 2; row 5 has no label
    assert whole["without"]["sleeve"]["right"] == 0.6  # row 1 too
    assert (whole["without"]["kind"]["right"], whole["without"]["kind"]["n"]) == (0.4, 5)
    assert whole["without"]["tone"]["right"] == 0.4


def test_pooled_tags_and_leaving_one_attribute_out(table: tuple[Any, LabelledPhotos]) -> None:
    pooled = evaluate(*table, THRESHOLDS, "0.95").sources["shop"]["pooled"]
    # kind: 5 labels, 5 accepted, 3 right; sleeve: 3, 2 of them (and 1 elsewhere), 1; tone: 4, 2, 1
    assert (pooled["labels"], pooled["n_accepted"]) == (12, 10)
    assert pooled["accepted"] == 0.75
    assert pooled["precision"] == 0.5
    without = pooled["without"]["sleeve"]
    assert (without["labels"], without["accepted"], without["precision"]) == (9, 0.7778, 0.5714)


def test_surest_mistakes_come_first(table: tuple[Any, LabelledPhotos]) -> None:
    mistakes = evaluate(*table, THRESHOLDS, "0.95").mistakes
    assert [(m.row, m.attribute, m.value, m.label, m.decision) for m in mistakes] == [
        (4, "kind", "shoes", "top", "accepted"),
        (3, "kind", "top", "trousers", "accepted"),
        (3, "sleeve", "short", "does not apply", "accepted"),
        (1, "sleeve", "short", "long", "accepted"),
        (3, "tone", "light", "dark", "accepted"),
    ]
    assert mistakes[0].confidence == pytest.approx(0.97, abs=1e-3)


def test_confusion_of_single_labels_has_a_column_for_no_tag(table: tuple[Any, LabelledPhotos]) -> None:
    curves = evaluate(*table, THRESHOLDS, "0.95").attributes
    assert curves["sleeve"]["shop"]["confusion"] == [[1, 0, 0], [1, 0, 1]]  # short; long: said short, no tag
    assert "calibration" not in curves["sleeve"]["shop"]  # three rows make no curve


def calibrated(label: Callable, say: Callable, n: int = 1200) -> tuple[Any, LabelledPhotos]:
    """`kind` is right as often as it says; every third photo, less sure, has no label at all. Two shops."""
    generator = np.random.default_rng(0)
    p = generator.uniform(0.5, 1.0, n)
    rows = [
        f"{'top' if generator.random() < q else 'trousers'},,{'dark' if i % 5 else 'light'}" for i, q in enumerate(p)
    ]
    unknown = np.arange(n) % 3 == 0
    photos = label(
        [",," if u else row for u, row in zip(unknown, rows, strict=True)],
        groups=[f"g{i % 40}" for i in range(n)],
        sources=[("a", "b")[i % 2] + "/labels.csv" for i in range(n)],
    )
    said = [
        {"top": q - 0.15 * u, "dark": 0.9 if i % 5 else 0.3} for i, (q, u) in enumerate(zip(p, unknown, strict=True))
    ]
    return say(said), photos


def test_calibrated_confidences_show_no_excess_error(label: Callable, say: Callable) -> None:
    found = evaluate(*calibrated(label, say), THRESHOLDS, "0.95").attributes["kind"]["a"]["calibration"]
    assert found["n"] == 400
    assert abs(found["ece_excess"]) < 0.03
    assert abs(found["mean_confidence"] - found["accuracy"]) < 0.05
    assert len(found["bins"]) == 10
    assert found["ece_excess"] == pytest.approx(found["ece"] - found["ece_of_redraws"], abs=2e-4)


def test_overconfidence_shows(label: Callable, say: Callable) -> None:
    logits, photos = calibrated(label, say)
    hot = Calibration(temperatures={"kind": 0.3})
    found = evaluate(logits, photos, hot, "0.95").attributes["kind"]["a"]["calibration"]
    assert found["ece_excess"] > 0.08
    assert found["mean_confidence"] - found["accuracy"] > 0.08


def test_low_confidence_finds_the_photos_that_nobody_could_name(label: Callable, say: Callable) -> None:
    curves = evaluate(*calibrated(label, say), THRESHOLDS, "0.95").attributes
    found = curves["kind"]["a"]["unlabelled"]
    assert found["auroc"] == pytest.approx(0.755, abs=0.05)  # ½ + ½·(1 − 0.7²)
    assert found["low"] < found["auroc"] < found["high"]
    assert found["n"] == 200
    assert "unlabelled" not in curves["tone"]["a"]  # nothing hangs on it: a gap is a gap


def test_auroc_of_a_binary_attribute_is_of_its_rarer_value(label: Callable, say: Callable) -> None:
    found = evaluate(*calibrated(label, say), THRESHOLDS, "0.95").attributes["tone"]["a"]["auroc"]
    assert found == {"value": "light", "auroc": 1.0, "low": 1.0, "high": 1.0}


def test_auroc_of_a_dependent_attribute_is_not_that_of_what_it_hangs_on(label: Callable, say: Callable) -> None:
    """Long and short are told apart without an error; how sure the photo is of a top has no say in it."""
    rows = [("top,long,", {"top": 0.9, "long": 0.8})] * 20 + [("top,short,", {"top": 0.3, "short": 0.8})] * 30
    logits = say([said for _, said in rows])
    found = evaluate(logits, label([text for text, _ in rows]), THRESHOLDS, "0.95").attributes["sleeve"]["shop"]
    assert found["auroc"] == {"value": "long", "auroc": 1.0, "low": 1.0, "high": 1.0}


def test_attribute_whose_every_label_the_category_excludes_is_reported(
    label: Callable, say: Callable, tmp_path: Path
) -> None:
    photos = label(["shoes,short,dark", "trousers,long,light"] * 15)
    logits = say([{"shoes": 0.9, "dark": 0.9}, {"trousers": 0.9, "light": 0.9}] * 15)
    source = evaluate(logits, photos, THRESHOLDS, "0.95").sources["shop"]
    assert source["pooled"]["without"].keys() == source["all_right"]["without"].keys() == {"kind", "sleeve", "tone"}
    write_report(HEAD, evaluate(logits, photos, THRESHOLDS, "0.95"), photos, DictFetcher({}), str(tmp_path))
    assert "Without sleeve" in (tmp_path / "report.html").read_text()


def test_thresholds_of_one_source_are_tested_on_the_other(label: Callable, say: Callable) -> None:
    """Shop b is wrong where shop a is right: a's threshold accepts everything there, with half the precision."""
    rows = ["top,,"] * 100 + ["top,,", "shoes,,"] * 50
    photos = label(rows, sources=["a/labels.csv"] * 100 + ["b/labels.csv"] * 100)
    table = evaluate(say([{"top": 0.9}] * 200), photos, THRESHOLDS, "0.95").transfer
    assert [(entry["fitted_on"], entry["tested_on"]) for entry in table] == [("a", "b"), ("b", "a")]
    pooled = table[0]["pooled"]
    assert [pooled[name] for name in ("labels", "accepted", "precision", "n_accepted")] == [100, 1.0, 0.5, 100]
    assert pooled["precision_low"] < 0.5 < pooled["precision_high"]
    assert table[0]["open"] == pooled  # there is no gate
    assert table[0]["unfamiliar"] is None
    assert table[0]["attributes"]["kind"]["threshold"] is not None
    assert table[1]["attributes"]["kind"]["threshold"] is None
    assert table[1]["pooled"]["accepted"] == 0.0


def test_unfamiliar_photos_and_kinds_of_every_source_are_counted(
    label: Callable, say: Callable, tmp_path: Path
) -> None:
    """Two shops that lie apart; every tenth photo of the second one is like nothing that the gate knows."""
    generator = np.random.default_rng(0)
    n = 400
    descriptors = np.abs(generator.normal(size=(n, 6))).astype(np.float32)
    descriptors[:200, 0] += 6
    photos = label(
        ["top,short,dark"] * n,
        groups=[f"{i // 200}-{i % 20}" for i in range(n)],
        sources=["a/labels.csv"] * 200 + ["b/labels.csv"] * 200,
    )
    logits = say([{"top": 0.9, "short": 0.9, "dark": 0.9}] * n)
    calibration = fit_calibration(logits, photos, targets=("0.95",), descriptors=descriptors).calibration
    strange = descriptors.copy()
    strange[200::10, 3] += 40
    evaluation = evaluate(logits, photos, calibration, "0.95", descriptors=strange)
    gates = {name: figures["gate"] for name, figures in evaluation.sources.items()}
    assert gates["a"]["kinds"] == {"a": 1.0, "b": 0.0}
    assert gates["b"]["kinds"]["b"] > 0.8
    assert gates["a"]["unfamiliar"]["share"] <= 0.02
    assert 0.10 <= gates["b"]["unfamiliar"]["share"] <= 0.12
    assert evaluation.sources["b"]["pooled"]["accepted"] == 1 - gates["b"]["unfamiliar"]["share"]
    fitted_on_a = evaluation.transfer[0]
    assert fitted_on_a["unfamiliar"] > 0.9
    assert fitted_on_a["pooled"]["accepted"] < 0.1
    assert fitted_on_a["open"]["accepted"] == 1.0
    page = page_of(tmp_path / "report", evaluation, photos, tmp_path)
    assert "Unlike the photos that the bundle was checked on: 1" in page
    text = markdown(report_data(HEAD, evaluation, photos), photos.schema)
    assert "Unlike the photos that the bundle was checked on: 1" in text


def test_one_source_alone_has_no_transfer(table: tuple[Any, LabelledPhotos]) -> None:
    assert evaluate(*table, THRESHOLDS, "0.95").transfer == []


# ------------------------------------------------------------------------------------------------ labels as sources


def test_sources_have_short_names_and_no_two_alike() -> None:
    files = ["data/cc0/labels.csv", "s3://shops/spring.csv.gz", "labels.csv", "x/a/labels.csv", "y/a/labels.csv"]
    assert source_names(files) == {
        "data/cc0/labels.csv": "cc0",
        "s3://shops/spring.csv.gz": "spring",
        "labels.csv": "labels",
        "x/a/labels.csv": "x/a",
        "y/a/labels.csv": "y/a",
    }


def test_rows_of_a_split_or_all_of_a_file_without_splits(label: Callable) -> None:
    photos = label(["top,,"] * 4, sources=["a/labels.csv"] * 2 + ["b/labels.csv"] * 2, splits=["val", "test", "", ""])
    assert choose_rows(photos, (), "test").item_ids == ("item-1", "item-2", "item-3")
    with pytest.raises(UsageError, match=r"b/labels\.csv has no column split"):
        choose_rows(photos, ("val",), "test")
    with pytest.raises(UsageError, match=r"a/labels\.csv has no row of the split train; it has test, val"):
        choose_rows(photos.select(np.array([0, 1])), ("train",), "test")


# ------------------------------------------------------------------------------------------------------- the run


def test_scores_come_back_in_the_labels_order(tmp_path: Path, dummy_bundle: str, apparel: Schema) -> None:
    names = ("c.png", "a.png", "b.png")
    drawn = [draw_photo(tmp_path / name, number, size=(40, 40)) for number, name in enumerate(names)]
    uris = (*map(str, drawn), str(tmp_path / "gone.jpg"))
    photos = LabelledPhotos(
        apparel, uris, ("x", "y", "x", "z"), ("l",) * 4, ("",) * 4, np.zeros((4, apparel.n_scores), bool), ("g",) * 4
    )
    write_split_manifest(photos, str(tmp_path / "scores.csv"))
    tag(tmp_path / "scores.csv", dummy_bundle, tmp_path / "out", shard_size=2)
    logits, ok, descriptors, embeddings, sha256s = read_scores(str(tmp_path / "out"), photos)
    assert (descriptors, embeddings) == (None, None)
    assert sha256s is not None
    assert sha256s.tolist() == [*(hashlib.sha256(path.read_bytes()).hexdigest() for path in drawn), ""]
    assert ok.tolist() == [True, True, True, False]
    assert logits.shape == (4, apparel.n_scores)
    assert len(np.unique(logits[:3], axis=0)) == 3
    backwards = photos.select(np.array([2, 1, 0]))
    write_split_manifest(backwards, str(tmp_path / "backwards.csv"))
    tag(tmp_path / "backwards.csv", dummy_bundle, tmp_path / "out-2")
    assert (read_scores(str(tmp_path / "out-2"), backwards).logits == logits[2::-1]).all()
    with pytest.raises(UsageError, match="was not made from these labels"):
        read_scores(str(tmp_path / "out"), photos.select(np.array([0, 1])))


def test_manifest_of_relative_photos_may_lie_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: Callable
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = label(["top,,"] * 3)
    photos = LabelledPhotos(
        **{**photos.__dict__, "uris": ("./images/a.jpg", "s3://shop/b.jpg", "")},
    )
    write_split_manifest(photos, "elsewhere/scores.csv")
    lines = (tmp_path / "elsewhere" / "scores.csv").read_text().splitlines()
    assert lines[1:] == [f"item-0,{tmp_path}/images/a.jpg", "item-1,s3://shop/b.jpg", "item-2,"]


# ---------------------------------------------------------------------------------------------------- the report


HEAD = ReportHead(
    bundle_name="autumn <b>",
    bundle_id="0123456789abcdef",
    calibration_id="fedcba9876543210",
    target="0.95",
    splits=("test",),
    thresholds={"kind": 0.7, "sleeve": None, "tone": 0.8},
    vetoed={"kind": ("shoes",)},
    failed=1,
    failures=({"item_id": "<script>", "image_uri": "a.jpg", "error": "truncated: ends early"},),
    unchecked={"tone": ("spring & sons",)},
)


def page_of(folder: Path, evaluation: Evaluation, photos: LabelledPhotos, tmp_path: Path) -> str:
    photo = draw_photo(tmp_path / "photo.jpg").read_bytes()
    write_report(HEAD, evaluation, photos, DictFetcher({photos.uris[3]: photo}), str(folder))
    return (folder / "report.html").read_text("utf-8")


def test_report_is_valid_json_with_every_figure(table: tuple[Any, LabelledPhotos], tmp_path: Path) -> None:
    evaluation = evaluate(*table, THRESHOLDS, "0.95")
    page_of(tmp_path / "report", evaluation, table[1], tmp_path)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    data = json.loads((tmp_path / "report" / "report.json").read_text(), parse_constant=refuse)
    assert data == json.loads(json.dumps(report_data(HEAD, evaluation, table[1])))
    assert data["bundle"]["bundle_id"] == HEAD.bundle_id
    assert data["sources"]["shop"]["attributes"]["kind"]["right"] == 0.6
    assert data["thresholds"]["sleeve"] is None
    assert data["mistakes"][0]["item_id"] == "item-4"


def test_markdown_has_a_row_for_every_attribute(table: tuple[Any, LabelledPhotos]) -> None:
    text = markdown(report_data(HEAD, evaluate(*table, THRESHOLDS, "0.95"), table[1]), table[1].schema)
    assert "| kind | 60.0 % | 0.0–100.0 | 50.0 % | 5 | 3 | 80.0 % |" in text
    assert "Always reviewed at this target: sleeve." in text
    assert "tone is reviewed on photos like those of spring & sons." in text
    widths = {line.count("|") for line in text.split("\n\n")[3].splitlines()}
    assert len(widths) == 1


def test_page_loads_nothing_and_escapes_what_it_shows(table: tuple[Any, LabelledPhotos], tmp_path: Path) -> None:
    page = page_of(tmp_path / "report", evaluate(*table, THRESHOLDS, "0.95"), table[1], tmp_path)
    assert "<script" not in page
    assert "autumn &lt;b&gt;" in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert "reviewed on photos like those of spring &amp; sons" in page
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#|data:image/jpeg)[^"'\s>]""", page)


def test_attribute_may_be_called_what_a_dict_calls_its_methods(
    table: tuple[Any, LabelledPhotos], toy: Schema, tmp_path: Path
) -> None:
    logits, photos = table
    attributes = tuple(replace(a, name="values") if a.name == "tone" else a for a in toy.attributes)
    photos = replace(photos, schema=Schema("toy", attributes))
    page = page_of(tmp_path / "report", evaluate(logits, photos, THRESHOLDS, "0.95"), photos, tmp_path)
    assert page.count('<section class="attribute"') == 3
    assert "reviewed on photos like those of" not in page


def test_page_shows_photos_of_mistakes_and_does_without_those_it_cannot_read(
    table: tuple[Any, LabelledPhotos], tmp_path: Path
) -> None:
    page = page_of(tmp_path / "report", evaluate(*table, THRESHOLDS, "0.95"), table[1], tmp_path)
    assert page.count("data:image/jpeg;base64,") == 3  # row 3 is wrong three times
    assert page.count('class="empty"') == 2


def test_page_draws_every_curve(label: Callable, say: Callable, tmp_path: Path) -> None:
    logits, photos = calibrated(label, say)
    page = page_of(tmp_path / "report", evaluate(logits, photos, THRESHOLDS, "0.95"), photos, tmp_path)
    traces = re.findall(r'<polyline class="trace [^"]+" points="([^"]+)"', page)
    assert len(traces) == 8  # two attributes × two sources × two plots; no sleeve is labelled
    for trace in traces:
        for point in trace.split():
            x, y = map(float, point.split(","))
            assert 42 <= x <= 292
            assert 12 <= y <= 202
    assert 'id="sleeve"' not in page
