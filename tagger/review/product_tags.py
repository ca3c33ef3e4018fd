"""What products say of the tags of their photos.

Of an item with several photos its product decides what is asked: what one photo leaves open may be plain on another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagger import storage
from tagger.errors import UsageError
from tagger.final import DISAGREEMENT, ledger_folder
from tagger.ledger import Ledger
from tagger.model.confidence import UNFAMILIAR_PHOTO
from tagger.products import combine_products
from tagger.results import ResultStore, RunInfo, read_parquet

_FILES = re.compile(r"part-\d{8}\.parquet")


class Said(NamedTuple):
    """What a product says of one of its attributes."""

    review: bool
    disagree: bool  # two photos are accepted with different values, or the shop's own word is another one
    unfamiliar: bool  # all of its photos are unlike those that the bundle was checked on
    reasons: tuple[str, ...] = ()  # of an item that people decided something of: why the attribute is in review


_SETTLED = Said(False, False, False)
_NOTHING_OPEN: Mapping[str, Said] = {}
_OPEN, _DISAGREEING = 1, 2  # bits of `ProductTags.codes`


@dataclass(frozen=True)
class ProductTags:
    """What products say of their attributes: those with several photos, and those that people decided anything of."""

    names: Sequence[str]
    hashes: npt.NDArray[np.uint64]  # (products,) of their item ids, ascending; products/ as the run left them
    codes: npt.NDArray[np.uint8]  # (products, names)
    unfamiliar: npt.NDArray[np.bool_]  # (products,)
    decided: Mapping[str, Mapping[str, Said]]  # item_id → attribute in review → what holds now

    @classmethod
    def read(cls, store: ResultStore, info: RunInfo, ledger: Ledger, names: Sequence[str]) -> ProductTags:
        """Empty before a run's products are there, but for what people decided."""
        decided = {}
        named = ledger.named_items() | Ledger.read(ledger_folder(store, info)).named_items()
        for table in combine_products(store, info, ledger, only=named) if named else ():
            for row in table.to_pylist():
                said = {name: _said(row, name) for name in names if row[f"{name}_decision"] == "review"}
                decided[row["item_id"]] = said or _NOTHING_OPEN
        hashes, codes, unfamiliar = [], [], []
        columns = [f"{name}{suffix}" for name in names for suffix in ("_decision", "_disagreement")]
        for table in _stored_products(store, ["item_id", "n_ok", "review_reasons", *columns]):
            table = table.filter(pc.greater(table.column("n_ok"), 1))
            hashes.append(np.array([number_of(text) for text in table.column("item_id").to_pylist()], np.uint64))
            by_name = np.zeros((table.num_rows, len(names)), np.uint8)
            for column, name in enumerate(names):
                review = pc.fill_null(pc.equal(table.column(f"{name}_decision"), "review"), False)
                by_name[:, column] = _OPEN * review.to_numpy()
                by_name[:, column] |= _DISAGREEING * table.column(f"{name}_disagreement").to_numpy().astype(np.uint8)
            reasons = table.column("review_reasons").to_pylist()
            for row, listed in enumerate(reasons):  # also where the shop's own word is another one
                for text in listed:
                    name, _, why = text.rpartition(":")
                    if why == DISAGREEMENT and name in names:
                        by_name[row, names.index(name)] |= _DISAGREEING
            codes.append(by_name)
            unfamiliar.append(np.array([UNFAMILIAR_PHOTO in listed for listed in reasons], bool))
        if not hashes:
            return cls(names, np.zeros(0, np.uint64), np.zeros((0, len(names)), np.uint8), np.zeros(0, bool), decided)
        all_hashes = np.concatenate(hashes)
        order = np.argsort(all_hashes, kind="stable")
        return cls(names, all_hashes[order], np.concatenate(codes)[order], np.concatenate(unfamiliar)[order], decided)

    def look_up(self, item_ids: Sequence[str], item_hashes: npt.NDArray[np.uint64], name: str) -> Iterator[Said | None]:
        """What the product of every row says of an attribute; None: no more than the row itself."""
        place = np.searchsorted(self.hashes, item_hashes)
        place[place == len(self.hashes)] = 0
        found = self.hashes[place] == item_hashes if len(self.hashes) else np.zeros(len(item_ids), bool)
        column = self.names.index(name)
        for item_id, at, there in zip(item_ids, place.tolist(), found.tolist(), strict=True):
            if item_id in self.decided:
                yield self.decided[item_id].get(name, _SETTLED)
            elif there:
                code = int(self.codes[at, column])
                yield Said(bool(code & _OPEN), bool(code & _DISAGREEING), bool(self.unfamiliar[at]))
            else:
                yield None


def _said(row: Mapping[str, Any], name: str) -> Said:
    """What a product says of an attribute that is in review."""
    reasons = reasons_of(name, row["review_reasons"])
    disagree = row[f"{name}_disagreement"] or DISAGREEMENT in reasons
    return Said(True, disagree, UNFAMILIAR_PHOTO in row["review_reasons"], reasons)


def _stored_products(store: ResultStore, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Those columns of products/, a file at a time; none before a run's products are there."""
    folder = storage.join(store.out, "products")
    for file_name in storage.list_names(folder):
        if _FILES.fullmatch(file_name):
            path = storage.join(folder, file_name)
            try:
                yield read_parquet(path, columns)
            except FileNotFoundError:  # a run is writing its products anew
                continue
            except (OSError, KeyError, pa.ArrowException) as error:
                raise UsageError(f"cannot read {path}: {error}") from None


def reasons_of(name: str, reasons: Sequence[str]) -> tuple[str, ...]:
    """What a row's reasons say of one attribute; where nothing, what they say of the whole photo."""
    prefix = f"{name}:"
    own = tuple(reason.removeprefix(prefix) for reason in reasons if reason.startswith(prefix))
    return own or tuple(reason for reason in reasons if ":" not in reason)


def number_of(text: str) -> int:
    """64 bits of a digest: the same for equal texts, in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
