"""Dynamic selection: for each image, the members that were right on similar images.

Images are similar if the members' log-probabilities are similar; pixels are not used.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array, Bools, Ints, softmax
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.log_proba import flat_features
from ensemble_kit.combiners.rules.rules import normalised
from ensemble_kit.errors import UsageError
from ensemble_kit.predictions.method_predictions import Combined, decided

CHUNK = 4096


class DynamicSelection(Combiner):
    """Base of dynamic selection: finds the region of competence, and averages the members there.

    The region of competence of an image is its `n_neighbors` nearest fitted images, by Euclidean
    distance of all members' centred log-probabilities. A subclass gives each member a weight from
    its correct predictions there. The result is the weighted mean of the members' probabilities, or
    the plain mean if all weights are 0.

    Parameters
    ----------
    n_neighbors : int
        Number of images in the region of competence, at most all fitted images.
    """

    is_fitted_to_labels = True
    is_rule = True
    fitted_names = ("points_", "assigned_", "labels_")

    def __init__(self, n_neighbors: int = 7) -> None:
        self.n_neighbors = n_neighbors

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:  # noqa: ARG002
        if self.n_neighbors < 1:
            raise UsageError(
                f"n_neighbors={self.n_neighbors} is too small",
                "a region of competence needs at least one image",
                "Use e.g. 7",
            )
        self.points_ = flat_features(logits).astype(np.float32)  # (n_fit, n_members * n_classes)
        self.assigned_ = _classes(logits)
        self.labels_ = labels.astype(np.int64)

    def _combine(self, logits: Array) -> Combined:
        from sklearn.neighbors import NearestNeighbors

        n_neighbors = min(self.n_neighbors, len(self.points_))
        search = NearestNeighbors(n_neighbors=n_neighbors).fit(self.points_.astype(np.float64))
        out = np.empty((len(logits), logits.shape[2]))
        for start in range(0, len(logits), CHUNK):
            rows = logits[start : start + CHUNK]
            near = search.kneighbors(flat_features(rows), return_distance=False)
            predicted = self.assigned_[near]  # (n_rows, n_neighbors, n_members)
            hits = predicted == self.labels_[near][:, :, None]
            weights = self._weights(hits, predicted == _classes(rows)[:, None])
            weights = np.where(weights.any(axis=1, keepdims=True), weights, 1.0)
            shares = weights / weights.sum(axis=1, keepdims=True)
            out[start : start + CHUNK] = np.einsum("nm,nmc->nc", shares, softmax(rows))
        return decided(normalised(out))

    def _weights(self, hits: Bools, alike: Bools) -> Array:
        """Weight of each member for each image, shape (n_rows, n_members).

        Parameters
        ----------
        hits : array of bool, shape (n_rows, n_neighbors, n_members)
            Whether the member was right on the neighbour; nearest first.
        alike : array of bool, shape (n_rows, n_neighbors, n_members)
            Whether the member predicts the same class for the neighbour and for the image.
        """
        raise NotImplementedError


class KnoraUnion(DynamicSelection):
    """KNORA-U: the weight of a member is the number of neighbours on which it was right.

    Parameters
    ----------
    n_neighbors : int

    References
    ----------
    Ko, A. H. R., Sabourin, R., & Britto, A. S. (2008). From dynamic classifier selection to
    dynamic ensemble selection. Pattern Recognition 41(5), 1718-1731. Here probabilities are averaged
    instead of votes.

    Examples
    --------
    >>> logits = np.array([[[2.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 2.0]]])
    >>> KnoraUnion(n_neighbors=1).fit(logits, [0, 1]).predict(logits).tolist()
    [0, 1]
    """

    def _weights(self, hits: Bools, alike: Bools) -> Array:  # noqa: ARG002
        return hits.sum(axis=1).astype(np.float64)


class KnoraEliminate(DynamicSelection):
    """KNORA-E: the mean of the members that were right on all neighbours.

    The farthest neighbour is dropped until there is such a member. If no member is right on the
    nearest neighbour, all members are averaged.

    Parameters
    ----------
    n_neighbors : int

    References
    ----------
    Ko, A. H. R., Sabourin, R., & Britto, A. S. (2008). From dynamic classifier selection to
    dynamic ensemble selection. Pattern Recognition 41(5), 1718-1731.
    """

    def _weights(self, hits: Bools, alike: Bools) -> Array:  # noqa: ARG002
        return _best(np.logical_and.accumulate(hits, axis=1).sum(axis=1).astype(np.float64))


class LocalAccuracy(DynamicSelection):
    """OLA: the member that was right on the most neighbours, or the mean of tied members.

    Parameters
    ----------
    n_neighbors : int

    References
    ----------
    Woods, K., Kegelmeyer, W. P., & Bowyer, K. (1997). Combination of multiple classifiers using
    local accuracy estimates. IEEE TPAMI 19(4), 405-410.
    """

    def _weights(self, hits: Bools, alike: Bools) -> Array:  # noqa: ARG002
        return _best(hits.sum(axis=1).astype(np.float64))


class LocalClassAccuracy(DynamicSelection):
    """LCA: the member with the best local accuracy for the class that it predicts.

    This accuracy is over the neighbours for which the member predicts the same class as for the
    image; 0 without such a neighbour. Tied members are averaged.

    Parameters
    ----------
    n_neighbors : int

    References
    ----------
    Woods, K., Kegelmeyer, W. P., & Bowyer, K. (1997). Combination of multiple classifiers using
    local accuracy estimates. IEEE TPAMI 19(4), 405-410.
    """

    def _weights(self, hits: Bools, alike: Bools) -> Array:
        n_alike = alike.sum(axis=1)
        return _best((hits & alike).sum(axis=1) / np.maximum(n_alike, 1))


def _best(competence: Array) -> Array:
    """1 for the best members of each row, 0 for the others."""
    return (competence == competence.max(axis=1, keepdims=True)).astype(np.float64)


def _classes(logits: Array) -> Ints:
    """The class that each member predicts for each image, shape (n_samples, n_members)."""
    n_samples, n_members, n_classes = logits.shape
    predicted = decided(softmax(logits).reshape(-1, n_classes)).predicted
    return predicted.reshape(n_samples, n_members)
