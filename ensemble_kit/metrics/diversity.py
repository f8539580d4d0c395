"""Diversity of members: pairwise agreement of their errors, and the gain of averaging."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array


def pairwise(right: npt.NDArray[np.bool_]) -> dict[str, Array]:
    """Pairwise diversity of members, each of shape (n_members, n_members).

    Parameters
    ----------
    right : array of bool, shape (n_samples, n_members)

    Returns
    -------
    dict
        `disagreement`: exactly one of the two is correct. `double_fault`: both are wrong.
        `q_statistic`: Yule's Q. `error_correlation`: NaN if a member is always or never wrong.

    References
    ----------
    Kuncheva, L. I., & Whitaker, C. J. (2003). Measures of diversity in classifier ensembles.
    Machine Learning 51, 181-207.

    Examples
    --------
    >>> right = np.array([[1, 1], [1, 0], [0, 0], [0, 0]], dtype=bool)
    >>> float(pairwise(right)["disagreement"][0, 1]), float(pairwise(right)["double_fault"][0, 1])
    (0.25, 0.5)
    """
    hit = right.astype(np.float64)
    n = len(hit)
    both = hit.T @ hit / n
    neither = (1 - hit).T @ (1 - hit) / n
    only = hit.T @ (1 - hit) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        q = (both * neither - only * only.T) / (both * neither + only * only.T)
        share = hit.mean(axis=0)
        spread = np.sqrt(share * (1 - share))
        correlation = (both - np.outer(share, share)) / np.outer(spread, spread)
    return {
        "disagreement": only + only.T,
        "double_fault": neither,
        "q_statistic": q,
        "error_correlation": np.where(np.outer(spread, spread) > 0, correlation, np.nan),
    }


def kappa_error(
    predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], n_classes: int
) -> Array:
    """Points of the kappa-error diagram: rows (kappa of a pair, their mean error).

    Parameters
    ----------
    predicted : array of int, shape (n_samples, n_members)

    References
    ----------
    Margineantu, D. D., & Dietterich, T. G. (1997). Pruning adaptive boosting. ICML.
    """
    from ensemble_kit.metrics.classification import cohen_kappa, confusion_matrix

    errors = (predicted != labels[:, None]).mean(axis=0)
    pairs = np.stack(np.triu_indices(predicted.shape[1], 1), axis=1)
    points = [
        (
            float(cohen_kappa(confusion_matrix(predicted[:, a], predicted[:, b], n_classes))),
            (errors[a] + errors[b]) / 2,
        )
        for a, b in pairs
    ]
    return np.array(points).reshape(-1, 2)


def ambiguity(proba: Array, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """The Brier score of the mean as the members' mean Brier score minus their ambiguity (exact).

    Parameters
    ----------
    proba : array, shape (n_samples, n_members, n_classes)

    References
    ----------
    Krogh, A., & Vedelsby, J. (1995). Neural network ensembles, cross validation, and active
    learning. NeurIPS 7.

    Examples
    --------
    >>> parts = ambiguity(np.array([[[1.0, 0.0], [0.0, 1.0]]]), np.array([0]))
    >>> parts["members"], parts["ambiguity"], parts["ensemble"]
    (1.0, 0.5, 0.5)
    """
    truth = np.eye(proba.shape[2])[labels]
    mean = proba.mean(axis=1)
    members = float(((proba - truth[:, None]) ** 2).sum(axis=2).mean())
    spread = float(((proba - mean[:, None]) ** 2).sum(axis=2).mean())
    return {
        "members": members,
        "ambiguity": spread,
        "ensemble": float(((mean - truth) ** 2).sum(axis=1).mean()),
    }
