"""What a person should look at: the open questions of an OUT.

A question is one tag of one photo whose final value is in review: the model is in doubt, the photo is not the one that
was decided, or the photos of a product disagree. Of an item with several photos it is the product's tag that must be in
review: what one photo leaves open may be plain on another, and nobody is asked about a photo that does not count for
its product. Tags that a person decided for any photo of the item are no question any more, rejected values are never
suggested, and attributes that hang on a decided one are derived again.

The order is that of work in blocks: by attribute in schema order (the category first, since its answer settles
others), by predicted value, the most uncertain first. Uncertainty is the margin between the two most probable values
(Scheffer et al. 2001, Active Hidden Markov Models for Information Extraction). A limit takes the most uncertain of
every predicted value in turn, so that no single look-alike fills the list. The audit sample stands at the end.

Parts are read one at a time. The lines wait in a temporary file while the list is put in order; memory holds a key of
31 bytes a line, one part, a byte for every attribute of a product with several photos, and what is open of the items
that people decided anything of.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tagger.compare import OTHER, parse_comparisons
from tagger.final import (
    DISAGREEMENT,
    FinalTag,
    Subject,
    called_changed,
    final_tags,
    stored_doubts,
    stored_photos_on_hand,
)
from tagger.ledger import Ledger
from tagger.model.confidence import UNFAMILIAR_PHOTO, Calibration, probabilities
from tagger.results import DESCRIPTOR_COLUMN, ResultStore, RunInfo, list_matrix
from tagger.review.product_tags import ProductTags, Said, number_of, reasons_of

AUDIT = "audit"
MAX_ALTERNATIVES = 5
MIN_ALTERNATIVE = 0.01
"""Values less probable than this are not offered: they only cost trust."""

_COLUMNS = ("item_id", "image_uri", "status", "image_sha256", "bundle_id", "review_reasons", "scores")
_KEY = np.dtype(
    [
        ("audit", np.bool_),
        ("attribute", np.int16),
        ("value", np.int32),
        ("margin", np.float32),
        ("tag", np.uint64),
        ("start", np.int64),
        ("size", np.int32),
    ]
)


class Question(NamedTuple):
    """One tag of one photo that waits for a person."""

    item_id: str
    image_uri: str  # as in the results: the manifest's text, secrets masked
    image_sha256: str
    attribute: str
    prediction: str
    confidence: float  # calibrated probability of `prediction`
    alternatives: tuple[tuple[str, float], ...]  # the next values and their probabilities, most probable first
    reasons: tuple[str, ...]
    bundle_id: str
    shop_word: str | None = None  # what the shop's own column says, where that is a reason to look


@dataclass(frozen=True)
class Selection:
    """Which questions are wanted."""

    attributes: tuple[str, ...] = ()  # empty: all
    audit: float = 0.0  # share of the accepted tags that is asked about all the same
    limit: int | None = None  # questions, besides the audit sample


def open_questions(store: ResultStore, info: RunInfo, ledger: Ledger, selection: Selection) -> Iterator[Question]:
    """The open questions of all committed parts, in the order in which to answer them.

    Raises:
        UsageError: an attribute that the schema does not have, or a part that cannot be read.
    """
    names = tuple(a.name for a in info.schema.attributes)
    chosen = [info.schema.attribute(name).name for name in selection.attributes]
    wanted = [name for name in names if not chosen or name in chosen]
    store = store.as_of_now()  # it is read more than once
    on_hand = stored_photos_on_hand(store, info, ledger)
    products = ProductTags.read(store, info, ledger, wanted)
    with tempfile.TemporaryFile(prefix="tagger-review-") as file:
        lines = _Lines(file, selection.limit)
        compared = dict.fromkeys(f"manifest_{c.column}" for c in parse_comparisons(info.key.compare, info.schema))
        columns = [*_COLUMNS, *compared, *([DESCRIPTOR_COLUMN] if info.descriptors else [])]
        columns += [*(f"{name}{suffix}" for name in wanted for suffix in ("", "_confidence", "_decision"))]
        for table in store.parts(columns):
            part = _Part.of(table, info, ledger, on_hand)
            found = [c for name in wanted for c in _candidates(part, name, products, selection.audit)]
            lines.add(part, found, _keys(part, found, info))
        yield from lines.in_order()


class _Candidate(NamedTuple):
    """A question before its line is written."""

    row: int  # among the ok rows of the part
    attribute: str
    value: str
    confidence: float
    margin: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """The ok rows of one part."""

    table: pa.Table
    info: RunInfo
    ledger: Ledger
    on_hand: Mapping[str, frozenset[str]]  # item_id → sha256 of its photos, where people decided anything on it
    item_ids: list[str]
    shas: list[str]
    reasons: list[list[str]]  # of the model, as tags/ holds them
    p: dict[str, npt.NDArray[np.float64]]  # attribute → P(value | applies), (rows, values)
    decided: dict[int, dict[str, FinalTag]]  # row → final tags, where people decided anything on the item

    @classmethod
    def of(cls, table: pa.Table, info: RunInfo, ledger: Ledger, on_hand: Mapping[str, frozenset[str]]) -> _Part:
        table = table.filter(pc.equal(table.column("status"), "ok")).combine_chunks()
        item_ids, shas = table.column("item_id").to_pylist(), table.column("image_sha256").to_pylist()
        reasons = table.column("review_reasons").to_pylist()
        scores = pc.list_flatten(table.column("scores")).to_numpy().astype(np.float32)
        logits = scores.reshape(table.num_rows, info.schema.n_scores)
        calibration = Calibration.from_dict(info.calibration)
        rows = [i for i, item_id in enumerate(item_ids) if item_id in on_hand or called_changed(reasons[i])]
        photos = [on_hand.get(item_ids[i], frozenset((shas[i],))) for i in rows]
        doubts = [
            stored_doubts(item_ids[i], of_item, reasons[i], info, ledger)
            for i, of_item in zip(rows, photos, strict=True)
        ]
        subjects = [Subject(item_ids[i], of_item, d) for i, of_item, d in zip(rows, photos, doubts, strict=True)]
        kind = sight = None
        if calibration.gate is not None and info.descriptors:
            described = list_matrix(table.column(DESCRIPTOR_COLUMN), calibration.gate.length)
            kind, sight = calibration.gate.kind_of(described), calibration.gate.see(described[rows])
        p = probabilities(logits, info.schema, calibration, kind)
        tags = final_tags(logits[rows], subjects, info, ledger, sight)
        return cls(table, info, ledger, on_hand, item_ids, shas, reasons, p, dict(zip(rows, tags, strict=True)))

    @cached_property
    def item_hashes(self) -> npt.NDArray[np.uint64]:
        """One number for every item_id, (rows,)."""
        return np.array([number_of(item_id) for item_id in self.item_ids], np.uint64)

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """One number for every (item_id, image_sha256), the same in every export, (rows,)."""
        pairs = zip(self.item_ids, self.shas, strict=True)
        return np.array([number_of(f"{item_id}\x1f{sha256}") for item_id, sha256 in pairs], np.uint64)

    def tag_hashes(self, attribute: str) -> npt.NDArray[np.uint64]:
        """One number for every tag of `attribute`, (rows,)."""
        return _mixed(self.hashes ^ np.uint64(number_of(attribute)))

    def rejected(self, row: int, attribute: str) -> frozenset[str]:
        """Values that people ruled out for this tag."""
        item_id = self.item_ids[row]
        verdict = self.ledger.verdict_of_item(item_id, self.on_hand.get(item_id, ()), attribute)
        return verdict.rejected if verdict is not None else frozenset()

    def question(self, candidate: _Candidate) -> Question:
        """The whole line of a candidate."""
        row, name = candidate.row, candidate.attribute
        attribute, p = self.info.schema.attribute(name), self.p[name][row]
        p_value = float(p[attribute.index(candidate.value)])
        p_applies = candidate.confidence / p_value if p_value > 0 else 0.0
        never = self.rejected(row, name) | {candidate.value}
        ranked = [(attribute.value_names[k], float(p[k]) * p_applies) for k in np.argsort(-p, kind="stable")]
        return Question(
            item_id=self.item_ids[row],
            image_uri=self.table.column("image_uri")[row].as_py(),
            image_sha256=self.shas[row],
            attribute=name,
            prediction=candidate.value,
            confidence=candidate.confidence,
            alternatives=tuple((v, q) for v, q in ranked if v not in never and q >= MIN_ALTERNATIVE)[:MAX_ALTERNATIVES],
            reasons=candidate.reasons,
            bundle_id=self.table.column("bundle_id")[row].as_py(),
            shop_word=self._shop_word(candidate),
        )

    def _shop_word(self, candidate: _Candidate) -> str | None:
        """The shop's word where it is a reason to look; photos may disagree besides."""
        if DISAGREEMENT not in candidate.reasons:
            return None
        for comparison in parse_comparisons(self.info.key.compare, self.info.schema):
            if comparison.attribute.name == candidate.attribute:
                word: str | None = self.table.column(f"manifest_{comparison.column}")[candidate.row].as_py()
                best = np.array([comparison.attribute.index(candidate.value)], np.int64)
                return word if comparison.verdicts([word], best)[0] == OTHER else None
        return None


def _candidates(part: _Part, name: str, products: ProductTags, audit: float) -> Iterator[_Candidate]:
    """The questions of one attribute in one part."""
    attribute = part.info.schema.attribute(name)
    values, confidences, decisions = (
        part.table.column(f"{name}{suffix}").to_pylist() for suffix in ("", "_confidence", "_decision")
    )
    margins = _margins(part.p[name])
    sampled = _sampled(part.tag_hashes(name), audit) if audit > 0 else np.zeros(len(values), bool)
    of_products = products.look_up(part.item_ids, part.item_hashes, name)
    for i, said in enumerate(of_products):
        decision, value, confidence, margin = decisions[i], values[i], confidences[i], float(margins[i])
        reasons: tuple[str, ...] = ()
        if i in part.decided:
            tag = part.decided[i][name]
            if tag.human or tag.value is None:
                continue
            decision, value, confidence, reasons = tag.decision, tag.value, tag.confidence, tag.reasons
            margin = _margin_without(part.p[name][i], attribute.value_names, part.rejected(i, name))
        elif decision == "review":
            reasons = reasons_of(name, part.reasons[i])
        if said is not None and decision in ("accepted", "review"):
            if UNFAMILIAR_PHOTO in part.reasons[i] and not said.unfamiliar:
                continue
            decision, reasons = _as_the_product(decision, reasons, said)
        if decision == "accepted" and sampled[i]:
            reasons = (AUDIT,)
        if decision == "review" or reasons == (AUDIT,):
            yield _Candidate(i, name, value, round(confidence, 4), margin, reasons)


def _as_the_product(decision: str, reasons: tuple[str, ...], said: Said) -> tuple[str, tuple[str, ...]]:
    """(decision, reasons) of a photo's tag, which is a question where its product's is.

    `settled` is a doubt that the other photos of the product settle: no question, and nothing for the audit sample.
    """
    if not said.review:
        return (decision if decision == "accepted" else "settled"), ()
    if said.disagree and DISAGREEMENT not in reasons:
        return "review", (*reasons, DISAGREEMENT)
    if decision == "accepted" and said.reasons:  # the photos together are less sure than each of them
        return "review", said.reasons
    return decision, reasons


def _margins(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The distance between the two most probable values of each row, (rows,)."""
    top = np.partition(p, -2, axis=1)
    margins: npt.NDArray[np.float64] = top[:, -1] - top[:, -2]
    return margins


def _margin_without(p: npt.NDArray[np.float64], names: Sequence[str], rejected: frozenset[str]) -> float:
    left = sorted((float(q) for q, name in zip(p, names, strict=True) if name not in rejected), reverse=True)
    return left[0] - left[1] if len(left) > 1 else 0.0


# -- the order -------------------------------------------------------------------------------------------------


def _keys(part: _Part, found: Sequence[_Candidate], info: RunInfo) -> npt.NDArray[np.void]:
    """The keys of a part's candidates, (len(found),) of `_KEY`."""
    position = {name: i for i, name in enumerate(info.schema.by_name)}
    hashes = {name: part.tag_hashes(name) for name in {c.attribute for c in found}}
    keys = np.zeros(len(found), _KEY)
    for i, c in enumerate(found):
        value = info.schema.attribute(c.attribute).index(c.value)
        tag = hashes[c.attribute][c.row]
        keys[i] = (c.reasons == (AUDIT,), position[c.attribute], value, c.margin, tag, -1, 0)
    return keys


class _Lines:
    """Lines on disk, their keys in memory."""

    def __init__(self, file: IO[bytes], limit: int | None) -> None:
        self._file = file
        self._limit = limit
        self._keys: list[npt.NDArray[np.void]] = []
        self._end = 0

    def add(self, part: _Part, found: Sequence[_Candidate], keys: npt.NDArray[np.void]) -> None:
        """Take the candidates of one part and their keys.

        With a limit, a line that more urgent ones push out is never written: what is pushed out by some of the lines is
        pushed out by all of them.
        """
        self._keys.append(keys)
        kept = np.arange(len(keys))
        if self._limit is not None:
            merged = np.concatenate(self._keys)
            first_new = len(merged) - len(keys)
            selected = _selected(merged, self._limit)
            kept = selected[selected >= first_new] - first_new
        for i in kept:
            data = json.dumps(part.question(found[int(i)]), ensure_ascii=False).encode()
            self._file.write(data)
            keys[i]["start"], keys[i]["size"] = self._end, len(data)
            self._end += len(data)
        if self._limit is not None:
            merged[first_new:] = keys
            self._keys = [merged[selected]]

    def in_order(self) -> Iterator[Question]:
        """The lines that remain, in the order in which to answer them."""
        keys = np.concatenate(self._keys) if self._keys else np.zeros(0, _KEY)
        keys = keys[_selected(keys, self._limit)]
        order = np.lexsort((keys["start"], keys["margin"], keys["value"], keys["attribute"], keys["audit"]))
        for start, size in zip(keys["start"][order].tolist(), keys["size"][order].tolist(), strict=True):
            self._file.seek(start)
            cells = json.loads(self._file.read(size))
            yield Question(*cells)._replace(alternatives=tuple((v, p) for v, p in cells[6]), reasons=tuple(cells[7]))


def _selected(keys: npt.NDArray[np.void], limit: int | None) -> npt.NDArray[np.int64]:
    """Positions of the lines to keep, ascending: each tag once, and the `limit` most urgent of those in doubt."""
    _, first = np.unique(keys["tag"], return_index=True)
    first.sort()
    if limit is None:
        return first
    audit = keys["audit"][first]
    doubtful = first[~audit]
    attribute, value, margin = (keys[name][doubtful] for name in ("attribute", "value", "margin"))
    order = np.lexsort((margin, value, attribute))
    starts = np.ones(len(order), bool)
    starts[1:] = (np.diff(attribute[order]) != 0) | (np.diff(value[order]) != 0)
    within = np.empty(len(order), np.int64)  # rank among the lines of the same prediction
    within[order] = np.arange(len(order)) - np.flatnonzero(starts)[np.cumsum(starts) - 1]
    urgent = doubtful[np.lexsort((margin, within))[:limit]]
    return np.sort(np.concatenate([urgent, first[audit]]))


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Every bit of the result depends on every bit of a number (the finaliser of SplitMix64: Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = numbers ^ (numbers >> np.uint64(31))
    return mixed


def _sampled(hashes: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Which tags a sample of this share takes; a larger sample holds the smaller ones, (rows,)."""
    result: npt.NDArray[np.bool_] = hashes.astype(np.float64) <= share * 2.0**64
    return result
