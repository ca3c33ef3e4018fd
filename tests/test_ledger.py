"""The ledger: what people decided, and that it is never lost, doubled or misread."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tagger.errors import DecisionsError
from tagger.ledger import Decision, Ledger, Verdict, append, decision_id, ledger_files

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def decided(
    action: str, value: str | None = None, photo: str = "aa", attribute: str = "colour", item: str = "1"
) -> Decision:
    return Decision(
        decision_id=decision_id([item, photo, attribute, action, value]),
        item_id=item,
        image_sha256=photo,
        attribute=attribute,
        action=action,
        value=value,
        model_value="red",
        bundle_id="b",
        reviewer="mina",
        decided_at="2026-01-31T12:00:00Z",
    )


def verdict(*decisions: Decision) -> Verdict | None:
    return Ledger(decisions).verdict("1", "aa", "colour")


def test_nobody_decided_anything_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    ledger = Ledger.read(str(tmp_path / "none"))
    assert not ledger
    assert ledger.verdict("1", "aa", "colour") is None
    assert not ledger.items()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    name = append(str(tmp_path), [decided("set", "blue")], NOON)
    assert name is not None
    assert ledger_files(str(tmp_path)) == [name]
    ledger = Ledger.read(str(tmp_path))
    assert ledger.verdict("1", "aa", "colour") == Verdict("set", "blue", frozenset())
    assert ledger.items() == {"1"}


def test_nothing_to_add_writes_no_file(tmp_path: Path) -> None:
    assert append(str(tmp_path), [], NOON) is None
    assert list(tmp_path.iterdir()) == []


def test_the_last_applied_wins() -> None:
    assert verdict(decided("set", "blue"), decided("set", "green")) == Verdict("set", "green", frozenset())
    assert verdict(decided("set", "blue"), decided("not_applicable")) == Verdict("not_applicable", None, frozenset())


def test_a_decision_given_twice_counts_where_it_stood_first() -> None:
    blue, green = decided("set", "blue"), decided("set", "green")
    assert verdict(blue, green, blue) == Verdict("set", "green", frozenset())


def test_rejections_add_up_and_setting_a_value_takes_its_rejection_back() -> None:
    red, blue = decided("reject", "red"), decided("reject", "blue")
    assert verdict(red, blue) == Verdict(None, None, frozenset({"red", "blue"}))
    assert verdict(red, blue, decided("set", "red")) == Verdict("set", "red", frozenset({"blue"}))


def test_rejecting_the_value_that_was_set_unsets_it() -> None:
    assert verdict(decided("set", "red"), decided("reject", "red")) == Verdict(None, None, frozenset({"red"}))
    assert verdict(decided("set", "red"), decided("reject", "blue")) == Verdict("set", "red", frozenset({"blue"}))


def test_clear_is_as_if_nobody_had_said_a_word() -> None:
    ledger = Ledger([decided("set", "blue"), decided("clear")])
    assert ledger.verdict("1", "aa", "colour") is None
    assert not ledger.photo_changed("1", ["aa"], "colour")
    assert not ledger.items()
    assert not ledger


def test_new_bytes_are_a_changed_photo_and_further_photos_are_not() -> None:
    ledger = Ledger([decided("set", "blue", photo="old")])
    assert ledger.photo_changed("1", ["new"], "colour")
    assert ledger.photos_of_item("1") == {"old"}
    assert not ledger.photo_changed("1", ["old", "another"], "colour")
    assert not ledger.photo_changed("1", ["new"], "pattern")
    assert not ledger.photo_changed("2", ["new"], "colour")


def test_photos_come_in_the_order_of_their_last_decision() -> None:
    ledger = Ledger([decided("set", "blue", "a"), decided("set", "blue", "b"), decided("set", "red", "a")])
    assert list(ledger.photos("1", "colour")) == ["b", "a"]


@pytest.mark.parametrize(
    "item", ["line\u2028separator", "next\x85line", "form\x0cfeed", "new\nline", "한글 🧥", '"', "\\"]
)
def test_any_item_id_survives(tmp_path: Path, item: str) -> None:
    append(str(tmp_path), [decided("set", "blue", item=item), decided("set", "red", item="after")], NOON)
    ledger = Ledger.read(str(tmp_path))
    assert ledger.items() == {item, "after"}


def test_files_keep_the_order_of_application_when_the_clock_goes_back(tmp_path: Path) -> None:
    append(str(tmp_path), [decided("set", "blue")], NOON)
    append(str(tmp_path), [decided("set", "green")], NOON)
    append(str(tmp_path), [decided("set", "red")], NOON - timedelta(days=400))
    assert len(ledger_files(str(tmp_path))) == 3
    assert Ledger.read(str(tmp_path)).verdict("1", "aa", "colour") == Verdict("set", "red", frozenset())


def test_files_of_another_name_do_not_count(tmp_path: Path) -> None:
    name = append(str(tmp_path), [decided("set", "blue")], NOON)
    assert name is not None
    for other in (f"{name}.bak", "notes.txt", f".unfinished-{name}"):
        (tmp_path / other).write_text("no ledger")
    assert Ledger.read(str(tmp_path)).ids == {decided("set", "blue").decision_id}


def test_fields_that_a_later_version_added_are_passed_over(tmp_path: Path) -> None:
    name = append(str(tmp_path), [decided("set", "blue")], NOON)
    file = tmp_path / str(name)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"mood": "sunny"}) + "\n")
    assert Ledger.read(str(tmp_path)).items() == {"1"}


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"decision_id": "x"}',
        "null",
        json.dumps(replace(decided("set", "blue"), action="guess").__dict__),
        json.dumps(replace(decided("set", "blue"), value=None).__dict__),
        json.dumps(replace(decided("set", "blue")).__dict__ | {"item_id": 7}),
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    name = append(str(tmp_path), [decided("set", "blue")], NOON)
    (tmp_path / str(name)).write_text(text + "\n")
    with pytest.raises(DecisionsError, match=str(name)):
        Ledger.read(str(tmp_path))


def test_bytes_that_are_no_text_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    name = append(str(tmp_path), [decided("set", "blue")], NOON)
    (tmp_path / str(name)).write_bytes(b"\xff\xfe\n")
    with pytest.raises(DecisionsError, match=str(name)):
        Ledger.read(str(tmp_path))
