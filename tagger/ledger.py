"""The ledger: what people decided, for ever.

Each `tagger review apply` adds one immutable file; nothing is edited in place. A decision binds to (item_id,
image_sha256, attribute): new photo bytes are a new question. The last applied decision wins. `tags/` stays the model's
word; everything that shows final values lays the ledger over it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from tagger import storage
from tagger.errors import DecisionsError

ACTIONS = ("set", "reject", "not_applicable", "clear")
_FILE = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{12}\.jsonl")


@dataclass(frozen=True)
class Decision:
    """One word of one person about one attribute of one photo."""

    decision_id: str  # digest of everything else but decided_at: applying a file twice changes nothing
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
    """All decisions of one folder, in the order in which they were applied."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self.ids: set[str] = set()
        self._verdicts: dict[TagKey, Verdict] = {}
        self._photos: dict[tuple[str, str], list[str]] = {}  # (item_id, attribute) → sha256 of decided photos
        self.count = 0
        for decision in decisions:
            self._add(decision)

    @classmethod
    def read(cls, folder: str) -> Ledger:
        """The ledger in `folder`; empty where there is none. Raises `DecisionsError` for a damaged file."""
        return cls(decision for name in ledger_files(folder) for decision in _read_file(storage.join(folder, name)))

    def _add(self, decision: Decision) -> None:
        if decision.decision_id in self.ids:
            return
        self.ids.add(decision.decision_id)
        self.count += 1
        key = TagKey(decision.item_id, decision.image_sha256, decision.attribute)
        before = self._verdicts.get(key, Verdict(None, None, frozenset()))
        if decision.action == "clear":
            self._verdicts.pop(key, None)
            return
        if decision.action == "reject":
            kept = before if before.value != decision.value else before._replace(action=None, value=None)
            after = kept._replace(rejected=kept.rejected | {decision.value or ""})
        else:
            after = Verdict(decision.action, decision.value, before.rejected - {decision.value or ""})
        self._verdicts[key] = after
        photos = self._photos.setdefault((decision.item_id, decision.attribute), [])
        if decision.image_sha256 in photos:
            photos.remove(decision.image_sha256)
        photos.append(decision.image_sha256)

    def verdict(self, item_id: str, image_sha256: str, attribute: str) -> Verdict | None:
        """What people say of one tag, or None."""
        return self._verdicts.get(TagKey(item_id, image_sha256, attribute))

    def decided_elsewhere(self, item_id: str, image_sha256: str, attribute: str) -> bool:
        """Whether a person decided this attribute for other bytes of the item, and not for these."""
        return (item_id, attribute) in self._photos and self.verdict(item_id, image_sha256, attribute) is None

    def last_photo(self, item_id: str, attribute: str) -> str | None:
        """sha256 of the item's photo that was decided last."""
        photos = self._photos.get((item_id, attribute))
        return photos[-1] if photos else None

    def items(self) -> set[str]:
        """The item ids that a person ever decided on."""
        return {item_id for item_id, _ in self._photos}

    def verdicts(self) -> Mapping[TagKey, Verdict]:
        """Every tag on which a decision holds."""
        return self._verdicts

    def __bool__(self) -> bool:
        return bool(self._photos)


def decision_id(fields: Sequence[str | None]) -> str:
    """The digest that names a decision."""
    return hashlib.sha256(json.dumps(list(fields), ensure_ascii=False).encode("utf-8", "replace")).hexdigest()[:24]


def ledger_files(folder: str) -> list[str]:
    """Names of the ledger's files, oldest first."""
    return [name for name in storage.list_names(folder) if _FILE.fullmatch(name)]


def append(folder: str, decisions: Sequence[Decision], now: datetime | None = None) -> str | None:
    """Add one immutable file with `decisions`; returns its name, or None where there was nothing to add.

    The file's name is later than every other one's even where the clock went back, since the last applied wins.
    """
    if not decisions:
        return None
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S.%fZ")
    existing = ledger_files(folder)
    if existing and stamp <= existing[-1][:23]:
        last = datetime.strptime(existing[-1][:23], "%Y%m%dT%H%M%S.%fZ").timestamp()
        stamp = datetime.fromtimestamp(last + 1e-5).strftime("%Y%m%dT%H%M%S.%fZ")
    text = "".join(json.dumps(asdict(decision), ensure_ascii=False) + "\n" for decision in decisions)
    data = text.encode("utf-8", "replace")
    name = f"{stamp}-{hashlib.sha256(data).hexdigest()[:12]}.jsonl"
    storage.write_bytes(storage.join(folder, name), data)
    return name


def _read_file(path: str) -> list[Decision]:
    try:
        lines = storage.read_bytes(path).decode().splitlines()
        return [Decision(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise DecisionsError(f"the ledger file {path} is damaged: {error}") from None
