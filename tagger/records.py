"""The small frozen records that travel between the stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tagger.errors import TaggerError


class Item(NamedTuple):
    """One data row of a manifest."""

    row: int  # 0-based data row: the identity of the row, also where item ids repeat
    item_id: str
    image_uri: str  # as the manifest writes it; empty where the product has no photo
    extra: tuple[str | None, ...] = ()  # the kept columns, in the order they were asked for


@dataclass(frozen=True, slots=True)
class Shard:
    """A run of consecutive rows: the unit of work, of retry and of commit."""

    index: int
    items: tuple[Item, ...]

    @property
    def part_name(self) -> str:
        return f"part-{self.index:08d}.parquet"


@dataclass(frozen=True)
class Committed:
    """A shard whose commit file is in place."""

    index: int
    part: str  # file name below tags/
    rows: int
    ok: int
    failed: dict[str, int]  # error kind → rows
    flagged: dict[str, int]  # attribute → rows in review
    needs_review: int  # rows
    inferred: int  # photos that went through the network
    reused: int  # rows whose scores came from a previous OUT
    churn_changed: int  # tags that differ from the previous OUT
    churn_total: int  # tags of the previous OUT that were compared
    photos: dict[str, int]  # sha256 of bytes that stand in several rows of the shard → rows
    sha256: str  # of the part file
    seconds: float
    accepted: dict[str, int] = field(default_factory=dict)  # attribute → rows whose tag is accepted
    compared: dict[str, dict[str, int]] = field(default_factory=dict)  # attribute → verdict on the shop's word → rows
    unknown_words: dict[str, dict[str, int]] = field(default_factory=dict)  # attribute → cell → rows, the most frequent
    unfamiliar: int = 0  # rows whose photo is unlike all that the bundle was checked on


@dataclass(frozen=True)
class ShardFailure:
    """A shard that could not be finished; the same command tries it again."""

    index: int
    error: TaggerError
