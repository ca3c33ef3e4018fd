"""The ledger: what people decided, for ever.

Each `tagger review apply` adds one immutable file; nothing is edited in place. A decision binds to (item_id,
image_sha256, attribute): new photo bytes are a new question. The last applied decision wins, also among the photos of
one item. `tags/` stays the model's word; everything that shows final values lays the ledger over it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from tagger import storage
from tagger.errors import DecisionsError

ACTIONS = ("set", "reject", "not_applicable", "clear")
_FILE = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{12}\.jsonl")
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_STAMP_LENGTH = 23


@dataclass(frozen=True)
class Decision:
    """One word of one person about one attribute of one photo."""

    decision_id: str  # digest of what the file says: applying it twice changes nothing
    item_id: str
    image_sha256: str
    attribute: str
    action: str  # set, reject, not_applicable or clear
    value: str | None  # of set and reject
    model_value: str | None  # what the model had said
    bundle_id: str
    reviewer: str
    decided_at: str  # UTC, RFC 3339


class TagKey(NamedTuple):
    """What a decision binds to."""

    item_id: str
    image_sha256: str
    attribute: str


class Verdict(NamedTuple):
    """What holds for one tag after all its decisions."""

    action: str | None  # 'set', 'not_applicable', or None where only rejections hold
    value: str | None  # of 'set'
    rejected: frozenset[str]  # values that are never suggested again for these bytes


class _Word(NamedTuple):
    """What one decision said, as long as it counts."""

    image_sha256: str
    action: str  # set, reject or not_applicable
    value: str | None
    order: int  # of its application


class Ledger:
    """All decisions of one folder, in the order in which they were applied; it does not change once it is read."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        """Takes `decisions` in the order in which they were applied; one that is given again counts where it stood."""
        self.ids: set[str] = set()
        self._named: set[str] = set()
        self._words: dict[tuple[str, str], list[_Word]] = {}  # (item_id, attribute) → what was said, the last one last
        for order, decision in enumerate(decisions):
            if decision.decision_id not in self.ids:
                self._add(decision, order)

    @classmethod
    def read(cls, *folders: str) -> Ledger:
        """The ledger in `folders`; empty where there is none. Several are one, by the time of their files.

        Raises:
            DecisionsError: a folder cannot be read, or a file in it is damaged.
        """
        files = []
        for folder in folders:
            try:
                files += [(name, storage.join(folder, name), folder) for name in ledger_files(folder)]
            except OSError as error:
                raise DecisionsError(f"cannot read the ledger {folder}: {storage.reason(error)}") from None
        ledger = cls(())
        ids: dict[str, set[str]] = {folder: set() for folder in folders}
        decisions = ((folder, decision) for _, path, folder in sorted(files) for decision in _read_file(path))
        for order, (folder, decision) in enumerate(decisions):
            if decision.decision_id not in ids[folder]:  # in another folder it was said again, at another time
                ids[folder].add(decision.decision_id)
                ledger._add(decision, order)
        return ledger

    def _add(self, decision: Decision, order: int) -> None:
        self.ids.add(decision.decision_id)
        self._named.add(decision.item_id)
        key = (decision.item_id, decision.attribute)
        words = [word for word in self._words.get(key, ()) if _counts_beside(word, decision)]
        if decision.action != "clear":
            words.append(_Word(decision.image_sha256, decision.action, decision.value, order))
        if words:
            self._words[key] = words
        else:
            self._words.pop(key, None)

    @cached_property
    def _photos_of_item(self) -> dict[str, tuple[str, ...]]:
        """item_id → sha256 of its photos with words on them, the last decided one last."""
        last: dict[str, dict[str, int]] = {}
        for (item_id, _), words in self._words.items():
            of_item = last.setdefault(item_id, {})
            for word in words:
                of_item[word.image_sha256] = max(word.order, of_item.get(word.image_sha256, -1))
        return {item_id: tuple(sorted(of_item, key=of_item.__getitem__)) for item_id, of_item in last.items()}

    def verdict(self, item_id: str, image_sha256: str, attribute: str) -> Verdict | None:
        """What people say of one tag of one photo, or None."""
        words = [w for w in self._words.get((item_id, attribute), ()) if w.image_sha256 == image_sha256]
        return _verdict(words) if words else None

    def verdict_of_item(self, item_id: str, photos: Collection[str], attribute: str) -> Verdict | None:
        """What people say of an item's attribute by the words on its `photos`, as if these were one; or None.

        The last word counts. Where what the words on these come to was overruled on a photo that is not among them,
        none counts: what overruled it is gone.
        """
        words = self._words.get((item_id, attribute), ())
        there = [word for word in words if word.image_sha256 in photos]
        if not there:
            return None
        verdict = _verdict(there)
        return verdict if not _overruled(verdict, words) else verdict._replace(action=None, value=None)

    def photo_changed(self, item_id: str, photos: Collection[str], attribute: str) -> bool:
        """Whether people decided this attribute of the item, but no word on the `photos` that it has now counts."""
        words = self._words.get((item_id, attribute), ())
        there = [word for word in words if word.image_sha256 in photos]
        return bool(words) and (not there or _overruled(_verdict(there), words))

    def photos_of_item(self, item_id: str) -> Sequence[str]:
        """sha256 of the item's photos on which a decision about any attribute holds, the last decided one last."""
        return self._photos_of_item.get(item_id, ())

    def photos_with_words(self, item_id: str, attribute: str) -> Sequence[str]:
        """sha256 of the item's photos on which a decision about `attribute` holds."""
        return list(dict.fromkeys(word.image_sha256 for word in self._words.get((item_id, attribute), ())))

    def named_items(self) -> Set[str]:
        """The items of all decisions, also of those that were taken back."""
        return self._named

    def items(self) -> Set[str]:
        """The items on which a decision holds."""
        return self._photos_of_item.keys()

    def verdicts(self) -> Mapping[TagKey, Verdict]:
        """Every tag on which a decision holds, photo by photo."""
        result = {}
        for (item_id, attribute), words in self._words.items():
            for photo in dict.fromkeys(word.image_sha256 for word in words):
                on_photo = [word for word in words if word.image_sha256 == photo]
                result[TagKey(item_id, photo, attribute)] = _verdict(on_photo)
        return result

    def __bool__(self) -> bool:
        return bool(self._words)


def _counts_beside(word: _Word, decision: Decision) -> bool:
    """Whether an earlier word still counts once `decision` was applied."""
    if word.image_sha256 != decision.image_sha256:
        return True
    if decision.action == "clear":  # as if nobody had ever said a word on this photo
        return False
    if word.action == "reject":
        return word.value != decision.value  # now set, or ruled out anew
    return decision.action == "reject"


def _verdict(words: Iterable[_Word]) -> Verdict:
    """What holds after `words`, in their order."""
    action = value = None
    rejected: set[str] = set()
    for word in words:
        if word.action == "reject":
            rejected.add(word.value or "")
            if action == "set" and value == word.value:
                action = value = None
        else:
            action, value = word.action, word.value
            rejected.discard(value or "")
    return Verdict(action, value, frozenset(rejected))


def _overruled(verdict: Verdict, words: Sequence[_Word]) -> bool:
    """Whether `verdict`, of the words on some photos, is no longer what all of `words` come to."""
    whole = _verdict(words)
    return verdict.action is not None and (verdict.action, verdict.value) != (whole.action, whole.value)


def decision_id(content: Sequence[str | None]) -> str:
    """The digest that names a decision."""
    return hashlib.sha256(json.dumps(list(content), ensure_ascii=False).encode("utf-8", "replace")).hexdigest()[:24]


def ledger_files(folder: str) -> list[str]:
    """Names of the ledger's files, oldest first."""
    return [name for name in storage.list_names(folder) if _FILE.fullmatch(name)]


def append(folder: str, decisions: Sequence[Decision], now: datetime | None = None) -> str | None:
    """Add one immutable file with `decisions`; returns its name, or None where there was nothing to add.

    The file's name is later than every other one's even where the clock went back, since the last applied wins.
    """
    if not decisions:
        return None
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    existing = ledger_files(folder)
    if existing:
        last = datetime.strptime(existing[-1][:_STAMP_LENGTH], _STAMP).replace(tzinfo=UTC)
        moment = max(moment, last + timedelta(microseconds=1))
    text = "".join(json.dumps(asdict(decision), ensure_ascii=False) + "\n" for decision in decisions)
    data = text.encode("utf-8", "replace")
    name = f"{moment.strftime(_STAMP)}-{hashlib.sha256(data).hexdigest()[:12]}.jsonl"
    storage.write_bytes(storage.join(folder, name), data)
    return name


_FIELDS = tuple(field.name for field in fields(Decision))
_OPTIONAL = ("value", "model_value")


def _read_file(path: str) -> list[Decision]:
    try:
        # only \n ends a line: JSON leaves the other line ends of Unicode as they are inside a text
        return [_parse(line) for line in storage.read_bytes(path).split(b"\n") if line]
    except OSError as error:
        raise DecisionsError(f"cannot read the ledger file {path}: {storage.reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise DecisionsError(f"the ledger file {path} is damaged: {error}; restore it from a backup") from None


def _parse(line: bytes) -> Decision:
    """One line of the ledger; fields that a later version added are passed over."""
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("a line is no JSON object")
    for name in _FIELDS:
        if not isinstance(data.get(name), str) and (name not in _OPTIONAL or data.get(name) is not None):
            raise ValueError(f"a decision without a text as {name}")
    known: dict[str, Any] = {name: data.get(name) for name in _FIELDS}
    decision = Decision(**known)
    if decision.action not in ACTIONS or (decision.action in ("set", "reject") and not decision.value):
        raise ValueError(f"a decision with the action {decision.action!r} and the value {decision.value!r}")
    return decision
