"""Bootstrap resamples of whole groups, as weights of the groups.

All methods share one set of weights, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.uncertainty.jackknife import CHUNK_WEIGHTS, strata_of
from ensemble_kit.seeding import generator


def group_weights(strata: Ints, n_resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    """How often each group is drawn, in chunks of shape (n, n_groups), float64.

    Groups are drawn with replacement within their stratum. The chunks have `n_resamples` rows in total.
    """
    n_groups = len(strata)
    members = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    step = max(1, min(n_resamples, CHUNK_WEIGHTS // n_groups))
    for start in range(0, n_resamples, step):
        n = min(step, n_resamples - start)
        weights = np.empty((n, n_groups))
        for some in members:
            drawn = rng.integers(0, len(some), size=(n, len(some)), dtype=np.int32)
            drawn += (np.arange(n, dtype=np.int32) * len(some))[:, None]
            counts = np.bincount(drawn.ravel(), minlength=n * len(some))
            weights[:, some] = counts.reshape(n, len(some))
        yield weights


def resampling(
    labels: Ints, groups: Ints, n_classes: int, n_resamples: int, seed: int
) -> Iterator[Array]:
    """Group weights of stratified resamples of a table, in chunks of shape (n, n_groups).

    Raises
    ------
    DataError
        `n_resamples` is below 1.
    """
    if n_resamples < 1:
        raise DataError(
            f"n_resamples={n_resamples} is too small",
            "a bootstrap needs at least one resample",
            "Use e.g. n_resamples=2000",
        )
    return group_weights(
        strata_of(labels, groups, n_classes), n_resamples, generator(seed, "bootstrap")
    )
