"""Decisions of people: read from their files, checked, and written once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes import tag
from review.shop import FORMULA, HOSTILE, PHOTOS, Shop, draw, write_lines

from tagger.errors import DecisionsError, UsageError
from tagger.ledger import Ledger, ledger_files
from tagger.review.decisions import Applied, apply_decisions

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def apply(shop: Shop, text: str | bytes, reviewer: str = "mina") -> Applied:
    file = shop.ledger.parent / "decisions.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return apply_decisions(str(shop.out), str(file), reviewer, str(shop.ledger), NOON)


def refused(shop: Shop, text: str | bytes) -> str:
    """The error of a file that is not applied; nothing of it is."""
    before = ledger_files(str(shop.ledger))
    with pytest.raises(DecisionsError) as caught:
        apply(shop, text)
    assert ledger_files(str(shop.ledger)) == before
    return str(caught.value)


def sha(shop: Shop, item_id: str, position: int = 0) -> str:
    return str([row for row in shop.tags() if row["item_id"] == item_id][position]["image_sha256"])


def written(shop: Shop) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for name in ledger_files(str(shop.ledger))
        for line in (shop.ledger / name).read_bytes().split(b"\n")
        if line
    ]


def test_a_file_made_by_hand_needs_three_columns(shop: Shop) -> None:
    applied = apply(shop, "item_id,attribute,value\n00123,colour,navy\n")
    assert applied.actions == {"set": 1}
    (decision,) = written(shop)
    row = next(row for row in shop.tags() if row["item_id"] == "00123")
    assert decision | {"decision_id": ""} == {
        "decision_id": "",
        "item_id": "00123",
        "image_sha256": row["image_sha256"],
        "attribute": "colour",
        "action": "set",
        "value": "navy",
        "model_value": row["colour"],
        "bundle_id": row["bundle_id"],
        "reviewer": "mina",
        "decided_at": "2026-01-31T12:00:00Z",
    }


@pytest.mark.parametrize(
    ("written_as", "value"),
    [("navy", "navy"), ("Navy", "navy"), ("남색", "navy"), (" NAVY ", "navy"), ("여러 색", "multi")],
)
def test_a_value_may_be_written_as_its_display_name(shop: Shop, written_as: str, value: str) -> None:
    apply(shop, f"item_id,attribute,value\n00123,colour,{written_as}\n")
    assert written(shop)[0]["value"] == value


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_files_saved_by_any_spreadsheet_are_read(shop: Shop, delimiter: str, bom: str, line_end: str) -> None:
    cells = [["item_id", "attribute", "value"], ["00123", "colour", "navy"], ["", "", ""], ["1E5", "colour", "red"]]
    applied = apply(shop, bom + line_end.join(delimiter.join(row) for row in cells) + line_end)
    assert applied.actions == {"set": 2}


def test_columns_may_be_written_with_capitals(shop: Shop) -> None:
    applied = apply(shop, "Item_ID,Attribute,Action,Value\n00123,colour,,navy\n")
    assert (applied.undecided, applied.actions) == (0, {"set": 1})


def test_lines_without_an_answer_are_counted_and_passed_over(shop: Shop) -> None:
    applied = apply(shop, "item_id,attribute,action,value\n00123,colour,,\n1E5,colour,,navy\nnobody,colour, ,\n")
    assert (applied.undecided, applied.actions) == (2, {"set": 1})


def test_every_action_is_written_as_meant(shop: Shop) -> None:
    model = {row["item_id"]: row for row in shop.tags()}
    apply(
        shop,
        "item_id,attribute,action,value,prediction\n"
        "00123,colour,set,navy,\n"
        "00123,pattern,Reject,,plain\n"
        "1E5,pattern,reject,dots,plain\n"
        "twice,pattern,reject,,\n"
        "1E5,gender,not_applicable,,women\n"
        "1E5,colour,clear,,\n",
    )
    assert [(d["item_id"], d["attribute"], d["action"], d["value"]) for d in written(shop)] == [
        ("00123", "colour", "set", "navy"),
        ("00123", "pattern", "reject", "plain"),
        ("1E5", "pattern", "reject", "dots"),
        ("twice", "pattern", "reject", model["twice"]["pattern"]),
        ("1E5", "gender", "not_applicable", None),
        ("1E5", "colour", "clear", None),
    ]


def test_applying_a_file_again_changes_nothing(shop: Shop) -> None:
    text = "item_id,attribute,value\n00123,colour,navy\n1E5,colour,red\n"
    assert apply(shop, text).known == 0
    before = written(shop)
    again = apply(shop, text)
    assert (again.file, again.known, again.overruled) == (None, 2, 0)
    assert written(shop) == before


def test_only_what_is_new_in_a_file_is_written(shop: Shop) -> None:
    apply(shop, "item_id,attribute,value\n00123,colour,navy\n")
    applied = apply(shop, "item_id,attribute,value\n00123,colour,navy\n1E5,colour,red\n1E5,colour,red\n")
    assert (applied.actions, applied.known) == ({"set": 1}, 1)
    assert len(written(shop)) == 2


def test_an_old_file_does_not_overrule_what_came_after_it_and_says_so(shop: Shop) -> None:
    first = "item_id,attribute,value\n00123,colour,navy\n"
    apply(shop, first)
    apply(shop, "item_id,attribute,value\n00123,colour,red\n")
    again = apply(shop, first)
    assert (again.file, again.overruled) == (None, 1)
    assert Ledger.read(str(shop.ledger)).verdict("00123", sha(shop, "00123"), "colour").value == "red"  # type: ignore[union-attr]


def test_the_same_answer_to_a_later_export_is_a_new_decision(shop: Shop) -> None:
    header = "item_id,attribute,value,exported_at\n"
    apply(shop, header + "00123,colour,navy,2026-01-31T09:00:00Z\n")
    apply(shop, header + "00123,colour,red,2026-01-31T10:00:00Z\n")
    apply(shop, header + "00123,colour,navy,2026-01-31T11:00:00Z\n")
    assert Ledger.read(str(shop.ledger)).verdict("00123", sha(shop, "00123"), "colour").value == "navy"  # type: ignore[union-attr]


def test_a_time_in_the_file_is_kept_in_utc(shop: Shop) -> None:
    apply(shop, "item_id,attribute,value,decided_at\n00123,colour,navy,2026-01-31T18:30:00+09:00\n")
    assert written(shop)[0]["decided_at"] == "2026-01-31T09:30:00Z"


def test_the_reviewer_of_the_line_comes_before_the_one_of_the_command(shop: Shop) -> None:
    apply(shop, "item_id,attribute,value,reviewer\n00123,colour,navy,jun\n1E5,colour,red,\n")
    assert [decision["reviewer"] for decision in written(shop)] == ["jun", "mina"]


def test_one_bad_line_rejects_the_whole_file_and_all_of_them_are_named(shop: Shop) -> None:
    several = sha(shop, "several")
    text = refused(
        shop,
        "item_id,image_sha256,attribute,action,value,decided_at\n"
        "00123,,colour,,navy,\n"  # 2: good
        "nobody,,colour,,navy,\n"  # 3
        "00123,,size,,navy,\n"  # 4
        "00123,,colour,,mauve,\n"  # 5
        '"1E5",,colour,,"na\nvy",\n'  # 6 and 7: a line end inside a cell
        "several,,colour,,navy,\n"  # 8: three photos
        f"several,{several},colour,,navy,\n"  # 9: good
        "several,feed,colour,,navy,\n"  # 10
        "00123,,colour,guess,,\n"  # 11
        "00123,,colour,set,,\n"  # 12
        "00123,,colour,clear,navy,\n"  # 13
        "00123,,colour,,red,\n"  # 14: contradicts line 2
        "00123,,colour,,navy\n"  # 15: narrow
        ",,colour,,navy,\n"  # 16
        "00123,,gender,,men,yesterday\n"  # 17
        "00123,,gender,,men,2026-01-31T09:00:00\n"  # 18
        "no photo,,colour,,navy,\n"  # 19: failed
        "00123,,gender,,men,0001-01-01T00:00:00+05:00\n",  # 20: before the calendar begins
    )
    named = {
        3: "has no tagged photo of an item 'nobody'",
        4: "no attribute 'size'",
        5: "colour has no value 'mauve'; it has black",
        6: "colour has no value 'na\\nvy'",
        8: "has 3 photos: image_sha256 must say which",
        10: "has no photo feed",
        11: "the action is 'guess'",
        12: "set needs a value",
        13: "clear takes no value",
        14: "contradicts line 2",
        15: "5 cells where the header has 6",
        16: "the item_id is empty",
        17: "not a time",
        18: "without a time zone",
        19: "item 'no photo' has no photo that could be read",
        20: "not a time",
    }
    lines = text.splitlines()
    assert f"{len(named)} lines are bad" in lines[0]
    assert len(lines) == len(named) + 1
    for line, (number, words) in zip(lines[1:], named.items(), strict=True):
        assert line.startswith(f"  line {number}: ")
        assert words in line


def test_of_many_bad_lines_the_first_twenty_are_named(shop: Shop) -> None:
    text = refused(shop, "item_id,attribute,value\n" + "nobody,colour,navy\n" * 25)
    assert len(text.splitlines()) == 1 + 20 + 1
    assert "line 21:" in text
    assert text.endswith("and 5 more")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column item_id"),
        ("item_id,value\n00123,navy\n", "no column attribute; its first line has item_id, value"),
        ("attribute,value\ncolour,navy\n", "no column item_id"),
        ("item_id,attribute\n00123,colour\n", "neither a column value nor a column action"),
        ("item_id,attribute,value,value\n00123,colour,navy,navy\n", "the column value stands twice"),
        ('item_id,attribute,value\n00123,colour,"navy\n', "line 2: unexpected end of data"),
        ("item_id,attribute,value\n00123,colour,남색\n".encode("cp949"), "not UTF-8"),
        ("item_id,attribute,value\n00123,colour,navy\n".encode("utf-16"), "not UTF-8"),
        (f"item_id,attribute,value\n00123,colour,{'x' * 2_000_000}\n", "line 2: field larger than field limit"),
    ],
)
def test_a_file_that_is_no_such_table_is_an_error_that_says_why(shop: Shop, text: str | bytes, words: str) -> None:
    assert words in refused(shop, text)


def test_a_file_that_is_not_there(shop: Shop) -> None:
    with pytest.raises(DecisionsError, match=r"cannot read nowhere\.csv: No such file"):
        apply_decisions(str(shop.out), "nowhere.csv")


def test_a_folder_that_is_no_result(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no run\.json"):
        apply_decisions(str(tmp_path), "review.csv")


@pytest.mark.parametrize(
    "lines",
    [
        "00123,colour,set,navy\n00123,colour,not_applicable,\n",
        "00123,colour,set,navy\n00123,colour,reject,navy\n",
        "00123,colour,clear,\n00123,colour,reject,navy\n",
        "00123,colour,reject,navy\n00123,colour,set,red\n00123,colour,set,blue\n",
    ],
)
def test_lines_that_contradict_each_other_reject_the_file(shop: Shop, lines: str) -> None:
    assert "contradicts line" in refused(shop, "item_id,attribute,action,value\n" + lines)


def test_several_rejections_of_one_tag_go_together_with_the_right_value(shop: Shop) -> None:
    apply(
        shop,
        "item_id,attribute,action,value\n00123,colour,reject,navy\n00123,colour,reject,blue\n00123,colour,set,red\n",
    )
    verdict = Ledger.read(str(shop.ledger)).verdict("00123", sha(shop, "00123"), "colour")
    assert verdict is not None
    assert (verdict.value, verdict.rejected) == ("red", {"navy", "blue"})


def test_an_id_that_a_spreadsheet_changed_is_recognised_by_its_photo(shop: Shop) -> None:
    line = {"item_id": "123", "image_sha256": sha(shop, "00123"), "attribute": "colour", "value": "navy"}
    file = write_lines(shop.ledger.parent / "changed.csv", [line])
    with pytest.raises(DecisionsError, match="the photo is of item '00123': a spreadsheet may have changed the id"):
        apply_decisions(str(shop.out), str(file), decisions=str(shop.ledger))


def test_ids_that_look_like_formulas_or_hold_line_ends_come_back(shop: Shop) -> None:
    lines = [line for line in shop.review("--audit", "1") if line["attribute"] == "occasion"]
    hostile = [line | {"value": "formal"} for line in lines if line["item_id"] in (FORMULA, HOSTILE, "00123")]
    assert len(hostile) == 3
    assert shop.apply(hostile).exit_code == 0
    exported = shop.export()
    assert [exported[item]["occasion"] for item in (FORMULA, HOSTILE, "00123")] == ["formal"] * 3


def test_a_photo_drawn_twice_is_the_same_photo(tmp_path: Path) -> None:
    """What the tests here stand on: equal seeds give equal bytes, and only they do."""
    assert draw(tmp_path / "a.png", 1).read_bytes() == draw(tmp_path / "b.png", 1).read_bytes()
    assert draw(tmp_path / "a.png", 1).read_bytes() != draw(tmp_path / "b.png", 2).read_bytes()


# -- photos of another night -------------------------------------------------------------------------------------


def next_night(shop: Shop, folder: Path, change: str) -> Shop:
    """The shop's results after the photo of 00123 changed or is gone; the ledger is the same."""
    photos = folder / "photos"
    shutil.copytree(shop.folder / "photos", photos)
    shutil.copy(shop.folder / "shop.jsonl", folder)
    photo = photos / f"{PHOTOS['00123'][0]}.png"
    photo.unlink()
    if change == "changed":
        draw(photo, 999)
    tag(folder / "shop.jsonl", shop.bundle, folder / "tonight", decisions=str(shop.ledger))
    return replace(shop, out=folder / "tonight")


def test_an_answer_is_taken_where_the_photo_cannot_be_read_tonight(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    photo = sha(shop, "00123")
    tonight = next_night(shop, tmp_path / "night", "gone")
    applied = apply(tonight, f"item_id,image_sha256,attribute,value\n00123,{photo},colour,navy\n")
    assert applied.actions == {"set": 1}
    (decision,) = written(tonight)
    assert (decision["image_sha256"], decision["model_value"]) == (photo, None)
    assert tonight.export()["00123"]["colour"] == "navy"
    assert "no photo that could be read" in refused(tonight, "item_id,attribute,value\n00123,length,midi\n")


def test_an_answer_about_bytes_that_are_gone_says_where_it_belongs(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    photo = sha(shop, "00123")
    tonight = next_night(shop, tmp_path / "night", "changed")
    text = f"item_id,image_sha256,attribute,value\n00123,{photo},colour,navy\n"
    assert "apply the file to the result that it was exported from" in refused(tonight, text)
    apply(shop, text)
    assert "colour:photo_changed" in tonight.export()["00123"]["review_reasons"]
    taken_back = f"item_id,image_sha256,attribute,action\n00123,{photo},colour,clear\n"
    assert apply(tonight, taken_back).actions == {"clear": 1}
    assert "photo_changed" not in tonight.export()["00123"]["review_reasons"]
    assert not [line for line in tonight.review() if "photo_changed" in line["reason"]]


def test_taking_back_one_of_two_words_says_that_the_other_holds(shop: Shop) -> None:
    photos = [sha(shop, "several", i) for i in (0, 1)]
    header = "item_id,image_sha256,attribute,value,action"
    apply(shop, f"{header}\n" + "".join(f"several,{photo},colour,navy,\n" for photo in photos))
    assert apply(shop, f"{header}\nseveral,{photos[0]},colour,,clear\n").still_decided == 1
    assert shop.export()["several"]["colour"] == "navy"
    assert apply(shop, f"{header}\nseveral,{photos[1]},colour,,clear\n").still_decided == 0


def test_taking_back_finds_the_photo_that_carries_the_word(shop: Shop) -> None:
    photos = [sha(shop, "several", i) for i in (0, 1)]
    apply(shop, f"item_id,image_sha256,attribute,value\nseveral,{photos[1]},colour,navy\n")
    applied = apply(shop, "item_id,attribute,action\nseveral,colour,clear\n")
    assert (applied.actions, applied.still_decided) == ({"clear": 1}, 0)
    assert written(shop)[-1]["image_sha256"] == photos[1]
    assert "image_sha256 must say which" in refused(shop, "item_id,attribute,action\nseveral,pattern,clear\n")


def test_a_word_that_was_taken_back_after_the_night_is_a_question_again(shop: Shop, tmp_path: Path) -> None:
    """products/ of that night still hold it."""
    first = next(line for line in shop.review() if line["item_id"] == "several")
    apply(
        shop,
        "item_id,image_sha256,attribute,value\n"
        + ",".join(("several", first["image_sha256"], first["attribute"], first["prediction"]))
        + "\n",
    )
    tag(shop.folder / "shop.jsonl", shop.bundle, tmp_path / "tonight", decisions=str(shop.ledger), reuse=str(shop.out))
    tonight = replace(shop, out=tmp_path / "tonight")
    assert first["attribute"] not in {line["attribute"] for line in tonight.review() if line["item_id"] == "several"}
    apply(tonight, f"item_id,attribute,action\nseveral,{first['attribute']},clear\n")
    asked = {line["attribute"] for line in tonight.review() if line["item_id"] == "several"}
    assert first["attribute"] in asked
