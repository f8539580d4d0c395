"""Weights of lowest log loss: one per member on the simplex, or one per member and class.

Both problems are convex, so the solution does not depend on the start.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array, Ints, log_softmax, softmax
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.log_proba import clipped_log_proba
from ensemble_kit.combiners.weights.weighted_mean import WeightedMean
from ensemble_kit.predictions.method_predictions import Combined, decided


class SimplexWeights(WeightedMean):
    """Mean of probabilities under the non-negative weights, summing to 1, of lowest log loss.

    Fitted by an interior-point Newton method until the log loss is within `tolerance` of the
    optimum; `gap_` is the bound reached.

    Parameters
    ----------
    tolerance : float

    References
    ----------
    Lindsay, B. G. (1983). The geometry of mixture likelihoods. Annals of Statistics 11(1), 86-94
    (the bound).

    Examples
    --------
    >>> logits = np.log([[[0.9, 0.1], [0.5, 0.5]], [[0.1, 0.9], [0.6, 0.4]]])
    >>> SimplexWeights().fit(logits, [0, 1]).weights_.round(4)
    array([1., 0.])
    """

    fitted_names = ("weights_", "gap_")

    def __init__(self, tolerance: float = 1e-7) -> None:
        self.tolerance = tolerance

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:  # noqa: ARG002
        of_truth = np.exp(clipped_log_proba(logits)[np.arange(len(labels)), :, labels])
        self.weights_, self.gap_ = simplex_weights(of_truth, self.tolerance)


def simplex_weights(of_truth: Array, tolerance: float = 1e-7) -> tuple[Array, float]:
    """Weights w that maximise the mean of log(of_truth @ w), and a bound of the distance from the maximum.

    Parameters
    ----------
    of_truth : array, shape (n_samples, n_members)
        Each member's probability of the true class; positive.
    """
    n_samples, n_members = of_truth.shape
    w, barrier = np.full(n_members, 1.0 / n_members), 1e-2
    gap = np.inf
    for _ in range(200):
        ratio = of_truth / (of_truth @ w)[:, None]
        pull = ratio.mean(axis=0)
        gap = float(pull.max() - 1.0)
        if gap <= tolerance:
            break
        gradient = -pull - barrier / w
        hessian = ratio.T @ ratio / n_samples + np.diag(barrier / w**2)
        step = _equality_newton(hessian, gradient)
        shrinking = step < 0
        limit = 0.99 * float(np.min(-w[shrinking] / step[shrinking])) if shrinking.any() else 1.0
        w = w + min(1.0, limit) * step
        w = np.maximum(w, 1e-300) / w.sum()
        barrier = max(barrier * (0.2 if limit >= 0.5 else 0.7), 1e-12)
    w[w < 1e-6 / n_members] = 0.0
    return w / w.sum(), gap


def _equality_newton(hessian: Array, gradient: Array) -> Array:
    """The Newton step that does not change the sum of the weights."""
    solved = np.linalg.lstsq(
        hessian, np.stack([gradient, np.ones(len(gradient))], axis=1), rcond=None
    )[0]
    down, ones = solved[:, 0], solved[:, 1]
    return np.asarray(-down + ones * (down.sum() / ones.sum()))


class ClasswiseWeights(Combiner):
    """Softmax of a weighted sum of the members' log-probabilities, one weight per member and class.

    Weights are non-negative. A penalty shrinks them to 1 / n_members, the geometric mean.

    Parameters
    ----------
    ridge : float
        The penalty is ridge times the squared distance, added to the mean log loss.

    Examples
    --------
    >>> logits = np.log([[[0.9, 0.1], [0.5, 0.5]], [[0.1, 0.9], [0.6, 0.4]]])
    >>> ClasswiseWeights(ridge=0.01).fit(logits, [0, 1]).weights_.shape
    (2, 2)
    """

    is_fitted_to_labels = True
    fitted_names = ("weights_",)

    def __init__(self, ridge: float = 0.01) -> None:
        self.ridge = ridge

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:  # noqa: ARG002
        from scipy.optimize import minimize

        z = clipped_log_proba(logits)  # (n_samples, n_members, n_classes)
        n_samples, n_members, n_classes = z.shape
        truth = np.eye(n_classes)[labels]
        centre = 1.0 / n_members

        def loss(flat: Array) -> tuple[float, Array]:
            w = flat.reshape(n_members, n_classes)
            log_proba = log_softmax(np.einsum("nmc,mc->nc", z, w))
            slope = np.einsum("nc,nmc->mc", np.exp(log_proba) - truth, z) / n_samples
            value = -(log_proba * truth).sum() / n_samples + self.ridge * ((w - centre) ** 2).sum()
            return float(value), (slope + 2 * self.ridge * (w - centre)).ravel()

        start = np.full(n_members * n_classes, centre)
        found = minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start),
            options={"maxiter": 500, "gtol": 1e-7, "ftol": 1e-13},
        )  # fmt: skip
        self.weights_ = found.x.reshape(n_members, n_classes)

    def _combine(self, logits: Array) -> Combined:
        return decided(softmax(np.einsum("nmc,mc->nc", clipped_log_proba(logits), self.weights_)))
