"""Comparing maps on one grid: resampling, scaling, disagreement and overlap."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ensemble_kit.arrays import Array


def on_grid(maps: Array, shape: tuple[int, int]) -> Array:
    """Maps (n, height, width) resampled to `shape`, bilinear. Smaller grids use antialiasing."""
    smaller = maps.shape[1] > shape[0] or maps.shape[2] > shape[1]
    found = F.interpolate(
        torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[:, None],
        list(shape), mode="bilinear", align_corners=False, antialias=smaller,
    )  # fmt: skip
    return found[:, 0].numpy()


def relative(maps: Array) -> Array:
    """Each map (..., height, width) divided by the 99th percentile of its absolute values.

    The result is clipped to [-1, 1], so that single pixels do not hide all others. An empty map
    stays 0.

    Examples
    --------
    >>> relative(np.array([[0.0, 2.0], [4.0, 1.0]])).tolist()
    [[0.0, 0.5], [1.0, 0.25]]
    """
    sizes = np.abs(maps)
    most = sizes.max(axis=(-2, -1), keepdims=True)
    top = np.percentile(sizes, 99, axis=(-2, -1), keepdims=True, method="higher")
    top = np.where(top > 0, top, most)
    return np.where(top > 0, np.clip(maps / np.where(top > 0, top, 1.0), -1, 1), 0.0)


def disagreement(maps: Array) -> Array:
    """Disagreement of members: the standard deviation of their relative maps.

    Parameters
    ----------
    maps : array, shape (n, n_members, height, width)

    Returns
    -------
    array, shape (n, height, width)
        0 to 0.5. With one member: 0 everywhere.
    """
    return np.asarray(relative(maps).std(axis=1, dtype=np.float64), dtype=np.float32)


def overlap(one: Array, other: Array) -> float:
    """Overlap of two maps of sum 1: the sum of the smaller values, 0 to 1. NaN if one is empty.

    Examples
    --------
    >>> overlap(np.array([[1.0, 1.0]]), np.array([[0.0, 5.0]]))
    0.5
    """
    totals = float(one.sum()), float(other.sum())
    if min(totals) <= 0:
        return float("nan")
    return float(np.minimum(one / totals[0], other / totals[1]).sum())


def mean_overlap(maps: Array, others: Array | None = None) -> float:
    """The mean overlap of all pairs of maps, or of each map with each of `others`.

    NaN if no pair has two maps that are not empty.
    """
    if others is None:
        pairs = [(a, b) for i, a in enumerate(maps) for b in maps[i + 1 :]]
    else:
        pairs = [(a, b) for a in maps for b in others]
    found = np.array([overlap(a, b) for a, b in pairs])
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")
