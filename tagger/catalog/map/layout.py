"""A neighbour-preserving layout: t-SNE (van der Maaten and Hinton 2008), as openTSNE has it (Poličar et al. 2024).

openTSNE was chosen by measurement (bench/map.py --compare): of openTSNE, umap-learn and pacmap it kept neighbours best,
and it needs no compiler of its own at run time. It is an extra: `pip install 'tagger[map]'`.
"""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import numpy.typing as npt

from tagger.errors import UsageError

MIN_ITEMS = 10
PERPLEXITY = 30.0
"""About how many neighbours of each point are kept near; 15 and 50 measured no better."""

EXACT_NEIGHBOURS = 4_000
"""Up to so many points all distances are computed; beyond, Annoy's trees find the neighbours."""

EXACT_FORCES = 8_000
"""Up to so many points the quad tree of Barnes and Hut is quicker than interpolation by Fourier transforms."""

Floats = npt.NDArray[np.float32]


def require_library() -> None:
    """Raises `UsageError` where openTSNE is not installed, before any work is done."""
    if importlib.util.find_spec("openTSNE") is None:
        raise UsageError(
            "the neighbour layout needs openTSNE, which is not installed: pip install 'tagger[map]', "
            "or take --layout autoencoder"
        )


def neighbour_layout(features: Floats, seed: int = 0, threads: int | None = None) -> Floats:
    """Two dimensions in which near points are those that are near in `features`.

    Args:
        features: (n, any), Euclidean; at least MIN_ITEMS rows.
        seed: the same seed, library and number of threads give the same layout.
        threads: at most so many; default: all cores.

    Returns:
        (n, 2), `standardised`.

    Raises:
        UsageError: openTSNE is not installed.
    """
    require_library()
    from openTSNE import TSNE
    from openTSNE.affinity import PerplexityBasedNN

    n = len(features)
    jobs = (threads or os.cpu_count() or 1) if n > EXACT_FORCES else 1  # few points: threads cost more than they do
    affinities = PerplexityBasedNN(
        features,
        perplexity=min(PERPLEXITY, (n - 1) / 3),
        method="exact" if n <= EXACT_NEIGHBOURS else "annoy",
        n_jobs=jobs,
        random_state=seed,
    )
    solver = TSNE(negative_gradient_method="bh" if n <= EXACT_FORCES else "fft", n_jobs=jobs, random_state=seed)
    return standardised(
        np.asarray(solver.fit(affinities=affinities, initialization=_start(features, seed)), np.float32)
    )


def frame(xy: Floats) -> tuple[Floats, float]:
    """(centre (2,), scale) that `standardised` moves and scales by."""
    centre: Floats = np.median(xy, axis=0).astype(np.float32)
    return centre, float(np.quantile(np.abs(xy - centre).max(axis=1), 0.95)) or 1.0


def standardised(xy: Floats) -> Floats:
    """`xy` moved and scaled alike in both directions: its centre at the origin, 95 % of it within one unit."""
    centre, scale = frame(xy)
    result: Floats = ((xy - centre) / scale).astype(np.float32)
    return result


def _start(features: Floats, seed: int) -> npt.NDArray[np.float64]:
    """The two main components, small (Kobak and Berens 2019: it keeps the large distances), equal points apart."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    main = directions[:, :-3:-1]
    main *= np.sign(main[np.abs(main).argmax(axis=0), [0, 1]])  # their signs are a matter of chance
    start = centred @ main
    start *= 1e-4 / max(float(start.std(axis=0).max()), 1e-12)
    placed: npt.NDArray[np.float64] = start + np.random.default_rng(seed).normal(0.0, 1e-6, start.shape)
    return placed
