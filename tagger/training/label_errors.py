"""Labels that are likely wrong, for a person to look at: confident learning over out-of-fold predictions.

Every photo of train and val is judged by heads that were fitted without its group. A label is doubted where the
heads are surer of another value than they usually are of photos that carry that value (Northcutt, Jiang and Chuang
2021, "Confident Learning: Estimating Uncertainty in Dataset Labels"; cleanlab's implementation for labels of one
value, the same rule for partial labels, which cleanlab does not know).

The heads read embeddings of two networks: the trained one, which tells the values apart best but has seen the labels
of train, so that an error that it learned by heart stays hidden from it, and the one that the training began with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagger import storage
from tagger.model.net import AttributeNet
from tagger.source.fetch import mask_uri
from tagger.spreadsheet import write_csv
from tagger.training.data import LabelledPhotos, PhotoPack, fit_square, prefetch
from tagger.training.train import TrainConfig, attribute_losses

FILE_NAME = "label_errors.csv"
FOLDS = 5
MIN_LABELS = 30  # of an attribute, and of single values; with fewer nobody can tell what is usual
MAX_SHARE = 0.1  # of an attribute's labels that are listed at most
L2 = 1e-2  # weight decay of the heads; features are standardised
STEPS = 60  # of L-BFGS

COLUMNS = (
    "rank",
    "item_id",
    "image_uri",
    "image_sha256",
    "attribute",
    "label",  # what the labels say
    "prediction",  # what the photos of other groups suggest
    "confidence",  # its out-of-fold probability
    "label_confidence",  # that of the label
    "split",
    "reason",
    "action",  # these three are for the person, as in a review list
    "value",
    "reviewer",
)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabelError:
    """One label that is likely wrong."""

    row: int
    attribute: str
    label: tuple[str, ...]  # the values that it leaves possible
    suggested: str
    probability: float  # of the suggestion, out of fold
    label_probability: float  # of the label: the sum over its values

    @property
    def margin(self) -> float:
        """The more negative, the likelier an error."""
        return self.label_probability - self.probability


def embed(
    net: AttributeNet,
    pack: PhotoPack,
    rows: npt.NDArray[np.int64],
    config: TrainConfig,
    progress: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> Floats:
    """Embeddings (rows, features) of packed photos at the served size."""
    size = config.stages[-1].size
    tasks = (partial(fit_square, pack.pixels[row], size) for row in rows)
    net = net.to(config.device).eval()
    parts = []
    with torch.inference_mode():
        for pixels in prefetch(iter(tasks), config.batch_size, config.workers):
            parts.append(net(torch.from_numpy(pixels).to(config.device))[1].float().cpu().numpy())
            progress("looking for wrong labels", sum(map(len, parts)), len(rows))
    return np.concatenate(parts)


def group_folds(groups: Sequence[str], n_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """(rows,): a fold for every row, no group in two; large groups are dealt out first, each to the emptiest fold."""
    names, counts = np.unique(np.array(groups, dtype=object).astype(str), return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order], kind="stable")]
    sizes, fold_of = np.zeros(n_folds, dtype=np.int64), {}
    for index in order:
        fold = int(sizes.argmin())
        fold_of[str(names[index])] = fold
        sizes[fold] += counts[index]
    return np.array([fold_of[str(group)] for group in groups], dtype=np.int64)


def out_of_fold(photos: LabelledPhotos, features: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    """Probabilities (photos, n_scores) by softmax regressions that did not see the photo's fold.

    NaN where the other folds know nothing of an attribute.
    """
    probabilities = np.full((len(photos), photos.schema.n_scores), np.nan, dtype=np.float32)
    for fold in np.unique(folds):
        inside = folds == fold
        mean, scale = features[~inside].mean(0), features[~inside].std(0) + 1e-6
        standard = torch.from_numpy(((features - mean) / scale).astype(np.float32))
        others = photos.select(~inside)
        learned = [part for part in photos.schema.slices.values() if others.allowed[:, part].any()]
        if not learned:
            continue
        heads = _fit_heads(others, standard[torch.from_numpy(~inside)])
        with torch.inference_mode():
            logits = heads(standard[torch.from_numpy(inside)])
            for part in learned:
                probabilities[inside, part] = logits[:, part].softmax(1).numpy()
    return probabilities


def _fit_heads(photos: LabelledPhotos, features: torch.Tensor) -> nn.Linear:
    """One softmax regression per attribute, all in one layer; partial labels count by marginal likelihood."""
    heads = nn.Linear(features.shape[1], photos.schema.n_scores)
    nn.init.zeros_(heads.weight)
    nn.init.zeros_(heads.bias)
    allowed = torch.from_numpy(photos.allowed)
    optimizer = torch.optim.LBFGS(heads.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = attribute_losses(heads(features), allowed, photos.schema)
        loss = torch.stack(list(losses.values())).sum() + L2 / 2 * heads.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return heads


def find_label_errors(
    photos: LabelledPhotos, probabilities: Floats, settled: npt.NDArray[np.bool_] | None = None
) -> list[LabelError]:
    """Likely errors among the labels of `photos`, the likeliest first.

    Args:
        probabilities: (photos, n_scores), out of fold; NaN where nothing can be said.
        settled: (photos, attributes), labels that a person has decided already: not doubted again.
    """
    errors: list[LabelError] = []
    for index, attribute in enumerate(photos.schema.attributes):
        part = photos.schema.slices[attribute.name]
        rows = np.flatnonzero(photos.allowed[:, part].any(axis=1) & np.isfinite(probabilities[:, part]).all(axis=1))
        if settled is not None:
            rows = rows[~settled[rows, index]]
        label, chances = photos.allowed[rows, part], probabilities[rows, part].astype(np.float64)
        found = [
            LabelError(
                row=int(rows[at]),
                attribute=attribute.name,
                label=tuple(v for v, on in zip(attribute.value_names, label[at], strict=True) if on),
                suggested=attribute.value_names[suggestion],
                probability=float(chances[at, suggestion]),
                label_probability=float(chances[at, label[at]].sum()),
            )
            for at, suggestion in _doubted(label, chances)
        ]
        errors += sorted(found, key=lambda error: error.margin)[: int(MAX_SHARE * len(rows))]
    return sorted(errors, key=lambda error: (error.margin, error.row, error.attribute))


def _doubted(label: npt.NDArray[np.bool_], chances: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """(position, likelier value) of the labels of one attribute that confident learning doubts."""
    from cleanlab.count import get_confident_thresholds
    from cleanlab.filter import find_label_issues

    single = np.flatnonzero(label.sum(axis=1) == 1)
    given = label[single].argmax(axis=1)
    values, given = np.unique(given, return_inverse=True)  # cleanlab counts classes from 0 without gaps
    if len(single) < MIN_LABELS or len(values) < 2:
        return []
    among = chances[np.ix_(single, values)]
    among = among / np.maximum(among.sum(axis=1, keepdims=True), 1e-12)
    issues = find_label_issues(
        given, among, filter_by="confident_learning", return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    found = []
    for at in issues.tolist():
        others = np.where(np.arange(len(values)) == given[at], -1.0, among[at])
        found.append((int(single[at]), int(values[others.argmax()])))
    usual = np.full(label.shape[1], np.inf)
    usual[values] = get_confident_thresholds(given, among)
    for at in np.flatnonzero(label.sum(axis=1) > 1).tolist():
        sure = np.where(chances[at] >= usual, chances[at], -1.0)
        if sure.max() > 0 and not label[at, sure.argmax()]:
            found.append((at, int(sure.argmax())))
    return found


def write_label_errors(
    errors: Sequence[LabelError], photos: LabelledPhotos, sha256: Sequence[str], folder: str
) -> None:
    """label_errors.csv in `folder`: a list to be filled in and given to `tagger review apply`."""
    with storage.writer(storage.join(folder, FILE_NAME)) as output:
        write_csv(
            output,
            COLUMNS,
            (
                (
                    rank,
                    photos.item_ids[error.row],
                    mask_uri(photos.uris[error.row]),
                    sha256[error.row],
                    error.attribute,
                    "|".join(error.label),
                    error.suggested,
                    f"{error.probability:.4f}",
                    f"{error.label_probability:.4f}",
                    photos.splits[error.row],
                    f"{error.attribute}:label_error",
                    "",
                    "",
                    "",
                )
                for rank, error in enumerate(errors, 1)
            ),
        )


def doubt_labels(
    photos: LabelledPhotos, views: Sequence[Floats], settled: npt.NDArray[np.bool_] | None, seed: int
) -> list[LabelError]:
    """Likely label errors, from the mean of the judgements by every one of `views`; none with fewer than two groups.

    Args:
        views: embeddings (photos, features) by one network or several.
    """
    n_folds = min(FOLDS, len(set(photos.groups)))
    if n_folds < 2:
        return []
    folds = group_folds(photos.groups, n_folds, seed)
    judgements = [out_of_fold(photos, features, folds) for features in views]
    return find_label_errors(photos, np.mean(judgements, axis=0), settled)


def attribute_counts(errors: Sequence[LabelError]) -> dict[str, int]:
    """attribute → likely errors."""
    counts: dict[str, int] = {}
    for error in errors:
        counts[error.attribute] = counts.get(error.attribute, 0) + 1
    return cast(dict[str, int], dict(sorted(counts.items(), key=lambda entry: -entry[1])))
