"""Similar products: a photo in, the nearest items of a catalogue out.

A shop's back end loads a catalogue once and asks it from as many threads as it likes::

    from tagger.catalog.similar import Catalogue

    catalogue = Catalogue.load("manifest.tags")
    answer = catalogue.query(photo_bytes, k=4, where={"category": "dress"})
    for found in answer.found:
        print(found.item_id, found.similarity, found.likeness.words(catalogue.schema))

How two photos are compared is said in `tagger.catalog.vectors`, how a million of them are searched exactly in
`tagger.catalog.nearest`. Vectors are the model's; tags, filters and words have what people decided laid over them.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tagger.catalog.likeness import Likeness, Tag, compare
from tagger.catalog.nearest import ExactSearch
from tagger.catalog.photos import LIKELY, Photos, Where, read_photos
from tagger.catalog.vectors import WAYS, profiles, shares
from tagger.errors import UsageError
from tagger.final import ledger_folder
from tagger.ledger import Ledger
from tagger.model.bundle import load_bundle
from tagger.model.confidence import NOT_APPLICABLE, Calibration, decide
from tagger.model.engine import Engine, EngineSpec, Scores
from tagger.results import ResultStore, RunInfo
from tagger.schema import Schema
from tagger.source.decode import decode

WORLD_SAMPLE = 1_000  # photos whose nearest other product is looked for, to know how far apart they usually are
WORLD_PERCENTILE = 99.0
LEAST_ITEMS = 100  # below, the catalogue is too small to say what is unlike it


@dataclass(frozen=True)
class FoundItem:
    """One product of the answer, by the photo that is most like the query."""

    item_id: str
    row: int  # of the manifest
    image_uri: str
    image_sha256: str
    similarity: float  # 1 for a photo of the same sure tags and the same embedding
    tags: Mapping[str, str | None]  # attribute → value; None: does not apply
    likeness: Likeness


@dataclass(frozen=True)
class World:
    """How far the query is from the catalogue, and how far its own photos are from each other.

    By embedding; by profile where the run stored no embeddings.
    """

    distance: float  # to the nearest product that was found; where that is farther than usual, to the nearest of all
    usual: float  # 99 % of the catalogue's photos have another product at no greater distance

    @property
    def is_outside(self) -> bool:
        """Whether hardly any photo of the catalogue is so far from the others."""
        return self.distance > self.usual


@dataclass(frozen=True)
class Answer:
    """What is most like a photo, best first."""

    found: tuple[FoundItem, ...]
    by: str  # profile, embedding or blend
    tags: Mapping[str, str | None]  # of the query
    world: World | None  # None: the catalogue is too small to say


@dataclass(frozen=True)
class _Query:
    """A photo that is compared: its vectors, its tags, and the products that hold it."""

    profile: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32] | None
    tags: Mapping[str, Tag]
    itself: npt.NDArray[np.int32]  # numbers of the products that have a photo with the same bytes


class Catalogue:
    """The tagged photos of one OUT, in memory. Safe in several threads at once; nothing of OUT is changed."""

    def __init__(
        self, store: ResultStore, info: RunInfo, photos: Photos, bundle: str | None = None, device: str = "cpu"
    ) -> None:
        self.schema: Schema = info.schema
        self.out = store.out
        self.info = info
        self._photos = photos
        self._calibration = Calibration.from_dict(info.calibration)
        self._bundle, self._device = bundle or info.bundle, device
        self._engine: Engine | None = None
        self._engine_lock, self._search_lock = threading.Lock(), threading.Lock()
        self._searches: dict[str, ExactSearch] = {}
        self._usual: float | None = None
        self._usual_is_known = False

    @classmethod
    def load(
        cls, out: str, *, bundle: str | None = None, device: str = "cpu", decisions: str | None = None
    ) -> Catalogue:
        """Read the committed parts of OUT: about 0.6 KB of memory a photo, 1.2 KB where the run stored embeddings.

        Args:
            out: folder of a run; it need not be complete.
            bundle: the model that photos are looked at with. Default: the one that OUT was made with.
            decisions: ledger of what people decided. Default: the one that the run read, else OUT/decisions.

        Raises:
            UsageError: OUT is no result of a run, cannot be read, or has no tagged photo.
        """
        store = ResultStore(out)
        info = store.require_run()
        photos = read_photos(store, info, Ledger.read(ledger_folder(store, info, decisions)))
        if not len(photos):
            raise UsageError(f"{out} has no tagged photo to compare with")
        return cls(store, info, photos, bundle, device)

    def __len__(self) -> int:
        """Tagged photos."""
        return len(self._photos)

    @property
    def has_embeddings(self) -> bool:
        """Whether the run stored embeddings, so that they can be compared."""
        return self._photos.embeddings is not None

    @property
    def best_way(self) -> str:
        """How photos are compared where the caller does not say: the way that measured best, of those there are."""
        return WAYS[0] if self.has_embeddings else "profile"

    def query(
        self,
        photo: bytes | Scores,
        k: int = 4,
        *,
        by: str | None = None,
        where: Where | None = None,
        with_itself: bool = False,
    ) -> Answer:
        """The `k` products that are most like a photo, each by its most similar photo.

        Args:
            photo: the bytes of a photo in any format that a run reads, or what the bundle's engine says of one photo.
            by: profile, embedding or blend. Default: `best_way`.
            where: only products whose final values are these, also where they wait for review.
            with_itself: also products that have a photo of the very same bytes; they are left out otherwise.

        Raises:
            ImageError: the bytes cannot be read as a photo.
            SchemaError: `where` names an attribute or a value that the schema does not have.
            UsageError: there are no embeddings to compare; the bundle is another one than OUT was made with.
        """
        query = self._from_scores(photo, "") if isinstance(photo, Scores) else self._from_bytes(photo)
        return self._answer(query, k, by or self.best_way, where or {}, with_itself)

    def query_item(self, item_id: str, k: int = 4, *, by: str | None = None, where: Where | None = None) -> Answer:
        """The `k` products that are most like a product of the catalogue, by its first tagged photo; see `query`.

        Raises:
            UsageError: the catalogue has no tagged photo of that item.
        """
        row = self._photos.first_row(item_id)
        if row is None:
            raise UsageError(f"{self.out} has no tagged photo of the item {item_id!r}")
        embeddings = self._photos.embeddings
        query = _Query(
            self._photos.profiles[row],
            None if embeddings is None else embeddings[row],
            self._photos.tags(row),
            self._photos.groups[row : row + 1],
        )
        return self._answer(query, k, by or self.best_way, where or {}, with_itself=False)

    # -- the query -----------------------------------------------------------------------------------------------

    def _from_bytes(self, data: bytes) -> _Query:
        with self._engine_lock:  # an engine pads small batches in a buffer of its own
            engine = self._engine = self._engine or self._build_engine()
        pixels = decode(data, engine.input_spec.size).pixels
        with self._engine_lock:
            scores = engine.predict(pixels[None])
        return self._from_scores(scores, hashlib.sha256(data).hexdigest())

    def _from_scores(self, scores: Scores, sha256: str) -> _Query:
        logits = np.asarray(scores.logits, np.float32).reshape(-1)
        if logits.shape != (self.schema.n_scores,):
            raise UsageError(f"{len(logits)} scores, not the {self.schema.n_scores} of one photo in {self.out}")
        same = self._photos.rows_with(sha256)
        axes = self._photos.axes
        return _Query(
            profiles(logits[None], self.schema, self._calibration)[0],
            None if axes is None else axes.reduce(np.asarray(scores.embedding, np.float32).reshape(1, -1))[0],
            self._photos.tags(int(same[0])) if len(same) else self._tags(logits),
            np.unique(self._photos.groups[same]),
        )

    def _tags(self, logits: npt.NDArray[np.float32]) -> dict[str, Tag]:
        decided = decide(logits[None], self.schema, self._calibration, self.info.key.target_precision)
        tags = {}
        for attribute in self.schema.attributes:
            of = decided[attribute.name]
            value = None if of.decision[0] == NOT_APPLICABLE else attribute.value_names[of.best[0]]
            tags[attribute.name] = Tag(value, bool(of.confidence[0] >= LIKELY))
        return tags

    def _build_engine(self) -> Engine:
        bundle = load_bundle(self._bundle)
        if bundle.bundle_id != self.info.key.bundle_id:
            raise UsageError(
                f"the bundle {bundle.folder} is {bundle.bundle_id}, but {self.out} was made with "
                f"{self.info.key.bundle_id}; give that one with --bundle, or tag the catalogue again into a new OUT"
            )
        return EngineSpec(bundle.folder, self._device, 1, threads=len(os.sched_getaffinity(0))).build()

    # -- the answer ----------------------------------------------------------------------------------------------

    def _answer(self, query: _Query, k: int, by: str, where: Where, with_itself: bool) -> Answer:
        if k < 1:
            raise UsageError(f"k is {k}: ask for one product or more")
        groups = self._photos.groups
        others = None if with_itself or not len(query.itself) else ~np.isin(groups, query.itself)
        passing = self._photos.passing(where)
        allowed = others if passing is None else passing if others is None else passing & others
        found = self._search(by).nearest(self._vectors(by, query), k, groups, allowed)
        items = tuple(
            self._found(row, score, query)
            for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
        )
        tags = {name: tag.value for name, tag in query.tags.items()}
        return Answer(items, by, tags, self._world(query, found.rows, others))

    def _found(self, row: int, score: float, query: _Query) -> FoundItem:
        photos, tags = self._photos, self._photos.tags(row)
        return FoundItem(
            item_id=photos.item_id(row),
            row=int(photos.manifest_rows[row]),
            image_uri=photos.image_uris[row].as_py(),
            image_sha256=photos.sha256s[row].as_py(),
            similarity=score,
            tags={name: tag.value for name, tag in tags.items()},
            likeness=compare(self.schema, query.tags, tags),
        )

    def _vectors(self, by: str, query: _Query) -> list[npt.NDArray[np.float32]]:
        both = (query.profile, query.embedding)
        return [vector for vector, share in zip(both, shares(by), strict=True) if share and vector is not None]

    def _search(self, by: str) -> ExactSearch:
        """The search that `by` names; made at the first query that needs it."""
        if by not in WAYS:
            raise UsageError(f"--by {by}: {', '.join(WAYS)}")
        if by != "profile" and not self.has_embeddings:
            raise UsageError(f"{self.out} has no embeddings for --by {by}: run with --embeddings, or take --by profile")
        with self._search_lock:
            if by not in self._searches:
                both = (self._photos.profiles, self._photos.embeddings)
                kept = [(m, share) for m, share in zip(both, shares(by), strict=True) if share and m is not None]
                self._searches[by] = ExactSearch([m for m, _ in kept], [share for _, share in kept])
            return self._searches[by]

    def _world(self, query: _Query, found: npt.NDArray[np.intp], others: npt.NDArray[np.bool_] | None) -> World | None:
        """By looks where it can be: a network is sure of its tags also for a photo that shows no garment at all."""
        by = "embedding" if self.has_embeddings else "profile"
        search, vectors = self._search(by), self._vectors(by, query)
        with self._search_lock:
            if not self._usual_is_known:
                self._usual, self._usual_is_known = self._usual_distance(search), True
        if self._usual is None:
            return None
        distance = 1.0 - float(search.scores(vectors, np.sort(found)).max(initial=-1.0))
        if distance > self._usual:  # what was found was chosen in another way, or among a few: look at all
            nearest = search.nearest(vectors, 1, self._photos.groups, others).scores
            distance = 1.0 - float(nearest[0]) if len(nearest) else 1.0
        return World(distance, self._usual)

    def _usual_distance(self, search: ExactSearch) -> float | None:
        groups = self._photos.groups_by_bytes()
        if len(np.unique(groups)) < LEAST_ITEMS:
            return None
        sample = np.linspace(0, len(search) - 1, min(WORLD_SAMPLE, len(search))).astype(np.intp)
        return float(np.percentile(1.0 - search.nearest_others(sample, groups), WORLD_PERCENTILE))
