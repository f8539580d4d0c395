"""The order of the images in an epoch: shuffled, or sampled against class imbalance.

Used for training only: validation and test images keep their class frequencies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import UsageError, did_you_mean

SAMPLINGS = ("none", "oversample", "undersample", "balanced")


def epoch_order(
    labels: npt.NDArray[np.int64],
    sampling: str = "none",
    *,
    shuffle: bool,
    seed: int,
) -> npt.NDArray[np.int64]:
    """Positions to visit in one epoch.

    Parameters
    ----------
    labels : array of int, shape (n_samples,)
    sampling : {"none", "oversample", "undersample", "balanced"}
        `oversample` repeats the smaller classes up to the size of the largest; images of a class
        are repeated equally often (difference of at most one). `undersample` draws from the larger
        classes down to the size of the smallest. `balanced` visits n_samples images with equal
        shares of the classes in every batch.
    shuffle : bool
        Used with `none` only; the others always shuffle.
    seed : int

    Returns
    -------
    array of int, shape (epoch_length,)

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 1])
    >>> order = epoch_order(labels, "oversample", shuffle=True, seed=0)
    >>> np.bincount(labels[order]).tolist()
    [3, 3]
    """
    check_sampling(sampling)
    rng = np.random.default_rng(seed)
    if sampling == "none":
        return rng.permutation(len(labels)) if shuffle else np.arange(len(labels))
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    sizes = [len(m) for m in members]
    if sampling == "balanced":
        return _interleaved(members, len(labels), rng)
    target = max(sizes) if sampling == "oversample" else min(sizes)
    return rng.permutation(np.concatenate([_cycled(m, target, rng) for m in members]))


def epoch_length(labels: npt.NDArray[np.int64], sampling: str) -> int:
    """The number of images in one epoch."""
    counts = np.unique(labels, return_counts=True)[1]
    wanted = {"oversample": counts.max() * len(counts), "undersample": counts.min() * len(counts)}
    return int(wanted.get(sampling, len(labels)))


def check_sampling(sampling: str) -> None:
    """Raise a `UsageError` for a name that is not in `SAMPLINGS`."""
    if sampling not in SAMPLINGS:
        raise UsageError(
            f"Unknown sampling '{sampling}'",
            f"the kinds of sampling are {', '.join(SAMPLINGS)}",
            did_you_mean(sampling, SAMPLINGS),
        )


def _cycled(
    members: npt.NDArray[np.int64], n: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    rounds = [rng.permutation(members) for _ in range(-(-n // len(members)))]
    return np.concatenate(rounds)[:n]


def _interleaved(
    members: list[npt.NDArray[np.int64]], n: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    # Rounds of one image per class, in random order, so that every part of the epoch is balanced.
    n_rounds = -(-n // len(members))
    columns = np.stack([_cycled(m, n_rounds, rng) for m in members], axis=1)
    return rng.permuted(columns, axis=1).ravel()[:n]
