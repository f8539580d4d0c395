"""Colour leakage: how well colour alone predicts the label, by image folds and by group folds.

A linear model on a few colour statistics measures it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from ensemble_kit.errors import DataError, counted
from ensemble_kit.folds import make_folds
from ensemble_kit.images.strips import strips
from ensemble_kit.manifest.table import Manifest

QUANTILES = (5, 25, 50, 75, 95)
# Number of folds (fewer if a class has fewer groups), and of random repeats.
N_SPLITS, N_SEEDS = 5, 5


@dataclasses.dataclass(frozen=True)
class ColorLeak:
    """Cross-validated balanced accuracy of colour statistics.

    Parameters
    ----------
    by_image, by_group : float
        Mean over the seeds: folds by image, and folds by group.
    chance : float
        One over the number of classes.
    n, n_groups, n_splits : int
    by_image_seeds, by_group_seeds : tuple of float
        One value per seed of the folds.
    """

    by_image: float
    by_group: float
    chance: float
    n: int
    n_groups: int
    n_splits: int
    by_image_seeds: tuple[float, ...]
    by_group_seeds: tuple[float, ...]

    @property
    def points(self) -> float:
        """Difference of folds by image and folds by group, in points of balanced accuracy."""
        return 100 * (self.by_image - self.by_group)


def color_features(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Colour and edge statistics of an image, shape (34,).

    Per channel the mean, the spread and five quantiles; spread and quantiles of saturation; the
    mean strength of edges at one and at four pixels, per channel. Values of 0 .. 1.
    """
    counts = _level_counts(image)
    n, levels = counts.sum(axis=1)[:, None], np.arange(256) / 255
    means = counts @ levels / n[:, 0]
    spreads = np.sqrt((counts * (levels - means[:, None]) ** 2).sum(axis=1) / n[:, 0])
    quantiles = np.stack([_quantiles(row) for row in counts], axis=1).ravel()
    edges = [_edges(image, step) for step in (1, 4)]
    return np.concatenate([means, spreads, quantiles, *edges]).astype(np.float32)


def _level_counts(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Number of pixels at each level of red, green, blue and saturation, shape (4, 256)."""
    # A quarter of the pixels gives the same values in a quarter of the time.
    few = image[::2, ::2]
    counts = np.zeros((4, 256), dtype=np.int64)
    for rows in strips(*few.shape[:2]):
        red, green, blue = np.moveaxis(few[rows], 2, 0)
        high = np.maximum(np.maximum(red, green), blue)
        saturation = high - np.minimum(np.minimum(red, green), blue)
        for row, values in zip(counts, (red, green, blue, saturation), strict=True):
            row += np.bincount(values.ravel(), minlength=256)
    return counts


def _quantiles(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """`QUANTILES` of values of 0 .. 1, from the counts of their 256 levels; as numpy's percentile."""
    up_to = np.cumsum(counts)
    place = np.array(QUANTILES) / 100 * (up_to[-1] - 1)
    low = np.floor(place)
    below, above = (np.searchsorted(up_to, k, side="right") for k in (low, np.ceil(place)))
    return (below + (place - low) * (above - below)) / 255


def _edges(image: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.float64]:
    """Mean difference of pixels that are `step` apart in a row, per channel, of 0 .. 1; shape (3,)."""
    total = np.zeros(3, dtype=np.int64)
    for rows in strips(*image.shape[:2]):
        left, right = image[rows, :-step], image[rows, step:]
        apart = np.maximum(left, right) - np.minimum(left, right)
        total += apart.sum(axis=(0, 1), dtype=np.int64)
    return total / (image.shape[0] * (image.shape[1] - step) * 255)


def color_leak(manifest: Manifest, features: npt.NDArray[np.float32]) -> ColorLeak:
    """Measure how much better colour predicts the label if a group may be in several folds.

    Folds are drawn several times, with several seeds.

    Parameters
    ----------
    manifest : Manifest
        Its training rows are used.
    features : array of float32, shape (n_samples, n_features)
        `color_features` of each row.

    Raises
    ------
    DataError
        Too few groups for two folds.
    """
    rows = np.flatnonzero((manifest.table["split"] == "train").to_numpy())
    train, features = manifest.take(rows), features[rows]
    groups_of = (
        train.table.groupby("label")["group"]
        .nunique()
        .reindex(list(train.class_names), fill_value=0)
    )
    possible = min(N_SPLITS, int(groups_of.min()) if len(groups_of) else 0)
    if possible < 2:
        raise DataError(
            f"The smallest class has {counted(possible, 'group')}",
            "colour leakage is measured with at least two groups per class",
            "Add groups, or merge classes",
        )
    # More threads make such small models slower.
    with threadpool_limits(1):
        scores = {
            by: tuple(_score(train, features, possible, seed, by) for seed in range(N_SEEDS))
            for by in ("image", "group")
        }
    return ColorLeak(
        by_image=float(np.mean(scores["image"])),
        by_group=float(np.mean(scores["group"])),
        chance=1 / train.n_classes,
        n=len(train),
        n_groups=train.n_groups,
        n_splits=possible,
        by_image_seeds=scores["image"],
        by_group_seeds=scores["group"],
    )


def _score(
    train: Manifest, features: npt.NDArray[np.float32], n_splits: int, seed: int, by: str
) -> float:
    fold = make_folds(train, n_splits, seed=seed, by=by).of(train)
    predicted = np.empty(len(train), dtype=np.int64)
    for k in range(n_splits):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")
        )
        model.fit(features[fold != k], train.labels[fold != k])
        predicted[fold == k] = model.predict(features[fold == k])
    return float(balanced_accuracy_score(train.labels, predicted))
