"""The ledger: what people decided, for ever.

Each `tagger review apply` adds one immutable file; nothing is edited in place. A decision binds to (item_id,
image_sha256, attribute): new photo bytes are a new question. The last applied decision wins. `tags/` stays the model's
word; everything that shows final values lays the ledger over it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
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


class Ledger:
    """All decisions of one folder, in the order in which they were applied; it does not change once it is read."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self.ids: set[str] = set()
        self._verdicts: dict[TagKey, Verdict] = {}
        self._photos: dict[tuple[str, str], list[str]] = {}  # (item_id, attribute) → sha256, last decided last
        for decision in decisions:
            self._add(decision)
        self._photos_of_item: dict[str, set[str]] = {}
        for (item_id, _), photos in self._photos.items():
            self._photos_of_item.setdefault(item_id, set()).update(photos)

    @classmethod
    def read(cls, *folders: str) -> Ledger:
        """The ledger in `folders`; empty where there is none. Several are one, by the time of their files.

        Raises:
            DecisionsError: a folder cannot be read, or a file in it is damaged.
        """
        files = []
        for folder in folders:
            try:
                files += [(name, storage.join(folder, name)) for name in ledger_files(folder)]
            except OSError as error:
                raise DecisionsError(f"cannot read the ledger {folder}: {storage.reason(error)}") from None
        return cls(decision for _, path in sorted(files) for decision in _read_file(path))

    def _add(self, decision: Decision) -> None:
        if decision.decision_id in self.ids:
            return
        self.ids.add(decision.decision_id)
        key = TagKey(decision.item_id, decision.image_sha256, decision.attribute)
        photos = self._photos.setdefault((decision.item_id, decision.attribute), [])
        if decision.image_sha256 in photos:
            photos.remove(decision.image_sha256)
        if decision.action == "clear":  # as if nobody had ever said a word
            self._verdicts.pop(key, None)
            if not photos:
                del self._photos[decision.item_id, decision.attribute]
            return
        photos.append(decision.image_sha256)
        before = self._verdicts.get(key, Verdict(None, None, frozenset()))
        if decision.action == "reject":
            kept = before if before.value != decision.value else before._replace(action=None, value=None)
            after = kept._replace(rejected=kept.rejected | {decision.value or ""})
        else:
            after = Verdict(decision.action, decision.value, before.rejected - {decision.value or ""})
        self._verdicts[key] = after

    def verdict(self, item_id: str, image_sha256: str, attribute: str) -> Verdict | None:
        """What people say of one tag, or None."""
        return self._verdicts.get(TagKey(item_id, image_sha256, attribute))

    def photos(self, item_id: str, attribute: str) -> Sequence[str]:
        """sha256 of the item's photos on which a decision about `attribute` holds, the last decided one last."""
        return self._photos.get((item_id, attribute), ())

    def photo_changed(self, item_id: str, photos: Collection[str], attribute: str) -> bool:
        """Whether people decided this attribute of the item, but on none of the `photos` that it has now."""
        decided = self.photos(item_id, attribute)
        return bool(decided) and not any(sha256 in photos for sha256 in decided)

    def photos_of_item(self, item_id: str) -> Set[str]:
        """sha256 of the item's photos on which a decision about any attribute holds."""
        return self._photos_of_item.get(item_id, frozenset())

    def items(self) -> Set[str]:
        """The items on which a decision holds."""
        return self._photos_of_item.keys()

    def verdicts(self) -> Mapping[TagKey, Verdict]:
        """Every tag on which a decision holds."""
        return self._verdicts

    def __bool__(self) -> bool:
        return bool(self._photos)


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
