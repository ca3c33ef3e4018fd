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
    assert ledger.photos_of_item("1") == ("old",)
    assert not ledger.photo_changed("1", ["old", "another"], "colour")
    assert not ledger.photo_changed("1", ["new"], "pattern")
    assert not ledger.photo_changed("2", ["new"], "colour")


def test_photos_come_in_the_order_of_their_last_decision() -> None:
    ledger = Ledger([decided("set", "blue", "a"), decided("set", "blue", "b"), decided("set", "red", "a")])
    assert list(ledger.photos_of_item("1")) == ["b", "a"]


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


# -- the photos of one item ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        ([("set", "red", "a"), ("set", "blue", "b")], ("set", "blue", set())),
        ([("set", "red", "a"), ("reject", "red", "b")], (None, None, {"red"})),  # the last word is that it is not red
        ([("set", "red", "a"), ("set", "blue", "b"), ("reject", "green", "a")], ("set", "blue", {"green"})),
        ([("set", "red", "a"), ("set", "blue", "b"), ("reject", "blue", "b")], (None, None, {"blue"})),
        ([("reject", "red", "a"), ("set", "red", "b")], ("set", "red", set())),
        ([("set", "red", "a"), ("not_applicable", None, "b")], ("not_applicable", None, set())),
        ([("set", "red", "a"), ("set", "blue", "b"), ("clear", None, "b")], ("set", "red", set())),
    ],
)
def test_the_words_on_an_items_photos_are_as_those_on_one(
    decisions: list[tuple[str, str | None, str]], expected: tuple[str | None, str | None, set[str]]
) -> None:
    ledger = Ledger([decided(*each) for each in decisions])
    verdict = ledger.verdict_of_item("1", ("a", "b"), "colour")
    assert verdict is not None
    assert (verdict.action, verdict.value, set(verdict.rejected)) == expected


def test_an_overruled_word_does_not_come_back_when_the_photo_of_the_last_one_is_gone() -> None:
    ledger = Ledger([decided("set", "red", "a"), decided("set", "blue", "b")])
    assert ledger.photo_changed("1", ("a", "new"), "colour")
    verdict = ledger.verdict_of_item("1", ("a", "new"), "colour")
    assert verdict is not None
    assert verdict.action is None
    ruled_out = Ledger([decided("set", "red", "a"), decided("reject", "red", "b")])
    assert ruled_out.photo_changed("1", ("a", "new"), "colour")
    assert ruled_out.verdict_of_item("1", ("a", "new"), "colour") == Verdict(None, None, frozenset())
    agreed = Ledger([decided("set", "red", "a"), decided("set", "red", "b")])
    assert not agreed.photo_changed("1", ("a", "new"), "colour")
    assert agreed.verdict_of_item("1", ("a", "new"), "colour") == Verdict("set", "red", frozenset())


def test_what_is_said_again_in_another_ledger_is_said_again(tmp_path: Path) -> None:
    red, blue = decided("set", "red"), decided("set", "blue")
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    append(one, [red], datetime(2026, 1, 1, tzinfo=UTC))
    append(other, [blue], datetime(2026, 1, 2, tzinfo=UTC))
    append(other, [red], datetime(2026, 1, 3, tzinfo=UTC))
    for folders in ([other], [one, other], [other, one]):
        assert Ledger.read(*folders).verdict("1", "aa", "colour") == Verdict("set", "red", frozenset())
