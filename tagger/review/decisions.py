"""From a filled-in review list to the ledger.

A decisions file is CSV, as `tagger review export` writes it or made by hand: `item_id`, `attribute` and `value` or
`action` are needed; `image_sha256` may be left out where the item has one photo. What a line says:

=================  ==============  =========================================================
action             value           meaning
=================  ==============  =========================================================
(empty)            (empty)         not decided: the line is passed over
(empty) or set     a value         this is the value
reject             (empty)         the predicted value is wrong
reject             a value         this value is wrong
not_applicable     (empty)         the attribute means nothing for this product
clear              (empty)         take back all that was decided of this tag of this photo
=================  ==============  =========================================================

A value is written as in the schema or as its display name in any language. Every line is checked before anything is
written, and one bad line rejects the whole file.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from tagger import storage
from tagger.errors import UNSEEN_KINDS, DecisionsError, SchemaError
from tagger.final import ledger_folder, stored_photos_on_hand
from tagger.ledger import ACTIONS, Decision, Ledger, TagKey, append, decision_id
from tagger.results import ResultStore, RunInfo
from tagger.schema import Attribute, Schema
from tagger.spreadsheet import unquote

BAD_LINES_SHOWN = 20
MAX_FIELD = 1 << 20  # characters of one cell
_SHA256 = re.compile("[0-9a-f]{64}")
_MEND = "apply the file to the result that it was exported from, or export again"
_DELIMITERS = ",;\t"  # spreadsheets write ; where , is the decimal mark


@dataclass(frozen=True)
class Applied:
    """What came of a decisions file."""

    folder: str  # of the ledger
    file: str | None  # the new ledger file; None where the file held nothing new
    actions: Mapping[str, int]  # action → new decisions
    known: int  # decisions that an earlier application had written already
    overruled: int  # those of them that do not hold any more, since a later decision came after them
    undecided: int  # lines without an answer
    still_decided: int = 0  # words taken back of tags that another photo of the item decides all the same


class _Answer(NamedTuple):
    """One decided line of the file."""

    line: int
    item_id: str
    image_sha256: str  # empty: the item's only photo
    attribute: Attribute
    action: str
    value: str | None
    reviewer: str
    decided_at: str  # as the file gives it, in UTC; may be empty
    exported_at: str


class _Photo(NamedTuple):
    """What OUT says of one photo of an item."""

    bundle_id: str
    values: dict[str, str | None]  # attribute → the model's value


@dataclass
class _Report:
    """The bad lines found so far."""

    path: str
    bad: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, text: str) -> None:
        self.bad.append((line, text))

    def check(self) -> None:
        """Raises `DecisionsError` where a line was bad."""
        if not self.bad:
            return
        shown = [f"  line {line}: {text}" for line, text in sorted(self.bad)[:BAD_LINES_SHOWN]]
        if len(self.bad) > BAD_LINES_SHOWN:
            shown.append(f"  and {len(self.bad) - BAD_LINES_SHOWN} more")
        many = "1 line is bad" if len(self.bad) == 1 else f"{len(self.bad)} lines are bad"
        raise DecisionsError("\n".join([f"{self.path}: {many}, so nothing was applied:", *shown]))


def apply_decisions(
    out: str,
    path: str,
    reviewer: str = "",
    decisions: str | None = None,
    now: datetime | None = None,
) -> Applied:
    """Check every line of the file at `path` against the committed rows of `out`, and add its decisions to the ledger.

    Args:
        reviewer: stands in lines that name nobody.
        decisions: folder of the ledger; None: the one that the run in `out` reads.
        now: when lines without a time of their own were decided.

    Raises:
        DecisionsError: the file cannot be read or a line is bad; nothing was written.
        UsageError: `out` is no result of a run, or the ledger cannot be written.
    """
    store = ResultStore(out)
    info = store.require_run()
    folder = ledger_folder(store, info, decisions)
    ledger = Ledger.read(folder)
    report = _Report(path)
    answers, undecided = _read_answers(path, info.schema, reviewer, report)
    photos = _photos_of(store, answers)
    moment = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found: dict[str, Decision] = {}
    on_tag: dict[TagKey, list[tuple[int, Decision]]] = {}
    for answer in answers:
        decision = _decision(answer, photos, ledger, store.out, moment, report)
        if decision is None:
            continue
        others = on_tag.setdefault(TagKey(decision.item_id, decision.image_sha256, decision.attribute), [])
        against = next((line for line, other in others if _contradict(other, decision)), None)
        if against is not None:
            report.add(answer.line, f"it contradicts line {against} on the same tag")
        others.append((answer.line, decision))
        found.setdefault(decision.decision_id, decision)
    _name_missing(answers, photos, store, report)
    report.check()
    new = [decision for decision in found.values() if decision.decision_id not in ledger.ids]
    known = [decision for decision in found.values() if decision.decision_id in ledger.ids]
    try:
        file = append(folder, new, now)
    except OSError as error:
        raise DecisionsError(f"cannot write to the ledger {folder}: {storage.reason(error)}") from None
    return Applied(
        folder=folder,
        file=file,
        actions=dict(Counter(decision.action for decision in new)),
        known=len(known),
        overruled=sum(not _holds(decision, ledger) for decision in known),
        undecided=undecided,
        still_decided=_still_decided([d for d in new if d.action == "clear"], store, info, folder),
    )


def _still_decided(cleared: Sequence[Decision], store: ResultStore, info: RunInfo, folder: str) -> int:
    """How many of the `cleared` decisions are on a tag that a word on another photo of the item decides."""
    if not cleared:
        return 0
    ledger = Ledger.read(folder)
    on_hand = stored_photos_on_hand(store, info, ledger)
    left = (ledger.verdict_of_item(d.item_id, on_hand.get(d.item_id, ()), d.attribute) for d in cleared)
    return sum(verdict is not None and verdict.action is not None for verdict in left)


# -- the file --------------------------------------------------------------------------------------------------


def _read_answers(path: str, schema: Schema, reviewer: str, report: _Report) -> tuple[list[_Answer], int]:
    """(decided lines, number of undecided ones); bad lines go to the report."""
    answers: list[_Answer] = []
    undecided = 0
    for line, cells in _read_lines(path, report):
        if not (cells.get("action", "").strip() or cells.get("value", "").strip()):
            undecided += 1
            continue
        try:
            answers.append(_parse(line, cells, schema, reviewer))
        except (SchemaError, ValueError) as error:
            report.add(line, str(error))
    return answers, undecided


def _read_lines(path: str, report: _Report) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, column → cell) of every line that is not blank."""
    csv.field_size_limit(MAX_FIELD)
    line = 1
    try:
        with storage.open_read(path) as source:
            text = io.TextIOWrapper(source, "utf-8-sig", newline="")
            first = text.readline()
            delimiter = max(_DELIMITERS, key=first.count)
            reader = csv.reader(chain([first], text), delimiter=delimiter, strict=True)
            header = [column.strip().lower() for column in next(reader, [])]  # spreadsheets and people write Value
            _check_header(path, header)
            line = reader.line_num + 1
            for cells in reader:
                if any(cells) and len(cells) != len(header):
                    report.add(line, f"{len(cells)} cells where the header has {len(header)}")
                elif any(cells):
                    yield line, dict(zip(header, map(unquote, cells), strict=True))
                line = reader.line_num + 1
    except OSError as error:
        raise DecisionsError(f"cannot read {path}: {storage.reason(error)}") from None
    except UnicodeDecodeError:
        raise DecisionsError(f"{path} is not UTF-8 text; save it as 'CSV UTF-8'") from None
    except csv.Error as error:
        raise DecisionsError(f"{path}, line {line}: {error}; nothing was applied") from None


def _check_header(path: str, header: Sequence[str]) -> None:
    there = ", ".join(header) or "nothing"
    for column in ("item_id", "attribute"):
        if column not in header:
            raise DecisionsError(f"{path} has no column {column}; its first line has {there}")
    if "value" not in header and "action" not in header:
        raise DecisionsError(f"{path} has neither a column value nor a column action; its first line has {there}")
    twice = [column for column, n in Counter(header).items() if n > 1 and column]
    if twice:
        raise DecisionsError(f"{path}: the column {twice[0]} stands twice")


def _parse(line: int, cells: Mapping[str, str], schema: Schema, reviewer: str) -> _Answer:
    """A decided line, checked by itself; raises `SchemaError` or `ValueError` with what is wrong."""
    plain = {column: cell.strip() for column, cell in cells.items()}
    if not cells["item_id"]:
        raise ValueError("the item_id is empty")
    attribute = schema.attribute(plain["attribute"])
    action = plain.get("action", "").lower() or "set"
    if action not in ACTIONS:
        raise ValueError(f"the action is {action!r}; it is one of {', '.join(ACTIONS)}, or empty beside a value")
    text = plain.get("value", "")
    if action == "reject" and not text:
        text = plain.get("prediction", "")
    if action in ("not_applicable", "clear") and text:
        raise ValueError(f"{action} takes no value, but the value is {text!r}")
    if action == "set" and not text:
        raise ValueError("set needs a value; to confirm the prediction, copy it there")
    return _Answer(
        line=line,
        item_id=cells["item_id"],
        image_sha256=plain.get("image_sha256", "").lower(),
        attribute=attribute,
        action=action,
        value=_value(attribute, text) if text else None,
        reviewer=plain.get("reviewer") or reviewer,
        decided_at=_utc(plain.get("decided_at", "")),
        exported_at=plain.get("exported_at", ""),
    )


def _value(attribute: Attribute, text: str) -> str:
    """The value that `text` names: as the schema writes it, or by its only display name of that spelling."""
    if text in attribute.value_names:
        return text
    wanted = text.casefold()
    named = [
        value.name
        for value in attribute.values
        if wanted in {value.name.casefold(), *(name.casefold() for name in value.names.values())}
    ]
    if len(named) > 1:
        raise SchemaError(f"{text!r} names more than one {attribute.name}: {', '.join(named)}")
    return named[0] if named else attribute.value_names[attribute.index(text)]


def _utc(text: str) -> str:
    """A time of the file in UTC; raises `ValueError` for one that says not when it was."""
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text)
        in_utc = moment.astimezone(UTC)  # OverflowError: a zone that leads out of the calendar
    except (ValueError, OverflowError):
        raise ValueError(f"decided_at is {text!r}, not a time such as 2026-01-31T09:30:00Z") from None
    if moment.tzinfo is None:
        raise ValueError(f"decided_at is {text!r} without a time zone; write 2026-01-31T09:30:00Z")
    return in_utc.isoformat().replace("+00:00", "Z")


# -- against the results ---------------------------------------------------------------------------------------


@dataclass
class _Item:
    """What OUT says of one item."""

    bundle_id: str
    photos: dict[str, _Photo] = field(default_factory=dict)  # by sha256
    unread: bool = False  # some photo of the item could not be had


def _photos_of(store: ResultStore, answers: Sequence[_Answer]) -> dict[str, _Item]:
    """item_id → its photos, for the items that the answers name; one pass over the parts."""
    photos: dict[str, _Item] = {}
    if not answers:
        return photos
    item_ids = pa.array({answer.item_id for answer in answers}, pa.string())
    names = sorted({answer.attribute.name for answer in answers})
    for table in store.parts(["item_id", "image_sha256", "status", "error_kind", "bundle_id", *names]):
        for row in table.filter(pc.is_in(table.column("item_id"), item_ids)).to_pylist():
            of_item = photos.setdefault(row["item_id"], _Item(row["bundle_id"]))
            of_item.unread |= row["error_kind"] in UNSEEN_KINDS
            if row["status"] == "ok":
                photo = _Photo(row["bundle_id"], {name: row[name] for name in names})
                of_item.photos.setdefault(row["image_sha256"], photo)
    return photos


def _decision(
    answer: _Answer, photos: Mapping[str, _Item], ledger: Ledger, out: str, moment: str, report: _Report
) -> Decision | None:
    """The decision of one line; None where it has none, which the report tells unless the item is missing."""
    of_item = photos.get(answer.item_id)
    if of_item is None:
        return None
    name = answer.attribute.name
    with_words = ledger.photos_with_words(answer.item_id, name) if answer.action == "clear" else ()
    meant = [answer.image_sha256] if answer.image_sha256 else list(with_words or of_item.photos)
    if len(meant) > 1:
        report.add(answer.line, f"item {answer.item_id!r} has {len(meant)} photos: image_sha256 must say which")
        return None
    sha256 = meant[0] if meant else ""
    photo = of_item.photos.get(sha256)
    if photo is None and ((of_item.unread and _SHA256.fullmatch(sha256)) or sha256 in with_words):
        photo = _Photo(of_item.bundle_id, {name: None})  # it is one of another night
    if photo is None:
        which = f"photo {sha256[:16]}…" if sha256 else "photo that could be read"
        report.add(answer.line, f"item {answer.item_id!r} has no {which} in {out}; {_MEND}")
        return None
    value, model_value = answer.value, photo.values[name]
    if answer.action == "reject" and value is None:
        value = model_value
        if value is None:
            report.add(answer.line, f"there is no predicted {name} to reject; write the value that is wrong")
            return None
    content = (answer.item_id, sha256, name, answer.action, value)
    given = (answer.reviewer, answer.exported_at, answer.decided_at)
    return Decision(
        decision_id=decision_id((*content, *given)),
        item_id=answer.item_id,
        image_sha256=sha256,
        attribute=name,
        action=answer.action,
        value=value,
        model_value=model_value,
        bundle_id=photo.bundle_id,
        reviewer=answer.reviewer,
        decided_at=answer.decided_at or moment,
    )


def _name_missing(
    answers: Sequence[_Answer], photos: Mapping[str, object], store: ResultStore, report: _Report
) -> None:
    """Report the lines whose item OUT does not hold, with the item that their photo belongs to."""
    missing = [answer for answer in answers if answer.item_id not in photos]
    shas = pa.array({answer.image_sha256 for answer in missing[:BAD_LINES_SHOWN]}, pa.string())
    owners: dict[str, str] = {}
    for table in store.parts(["item_id", "image_sha256"]) if missing else ():
        found = table.filter(pc.is_in(table.column("image_sha256"), shas))
        owners.update(zip(found.column("image_sha256").to_pylist(), found.column("item_id").to_pylist(), strict=True))
    mend = _MEND if store.succeeded() else "its run is not complete"
    for answer in missing:
        owner = owners.get(answer.image_sha256)
        if owner is None:
            report.add(answer.line, f"{store.out} has no tagged photo of an item {answer.item_id!r}; {mend}")
        else:
            report.add(
                answer.line,
                f"there is no item {answer.item_id!r}, but the photo is of item {owner!r}: "
                "a spreadsheet may have changed the id, so import that column as text",
            )


def _contradict(one: Decision, other: Decision) -> bool:
    """Whether two decisions on one tag cannot both be meant."""
    if one.action == "reject" or other.action == "reject":
        return (one.action != other.action and one.value == other.value) or "clear" in (one.action, other.action)
    return (one.action, one.value) != (other.action, other.value)


def _holds(decision: Decision, ledger: Ledger) -> bool:
    """Whether the ledger still says what `decision` says."""
    verdict = ledger.verdict(decision.item_id, decision.image_sha256, decision.attribute)
    if verdict is None:
        return decision.action == "clear"
    if decision.action == "reject":
        return decision.value in verdict.rejected
    return (verdict.action, verdict.value) == (decision.action, decision.value)
