"""Logistic recalibration: one slope on log-probabilities, and an intercept per class but the first.

Newton's method on a convex loss, and that loss's derivatives row by row. Knows no groups.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, log_softmax
from ensemble_kit.metrics.probability import SMALLEST_PROBA

Ints = npt.NDArray[np.int64]
N_STEPS = 50
# On scores of unit spread: a step below this one means that the maximum is reached.
SMALLEST_STEP = 1e-9
# Mean curvature below this one: the data do not tell, for want of spread or of a maximum.
SMALLEST_CURVATURE = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Recalibration:
    """The fit of softmax(slope * log proba + intercepts) to labels.

    Parameters
    ----------
    scores : array, shape (n_samples, n_present)
        Log-probabilities of the classes among the labels, divided by their `spread`.
    labels : array of int, shape (n_samples,)
        Numbered over those classes.
    parameters : array, shape (n_present,)
        Slope, on those scores, and intercepts of most likelihood.
    spread : float
    """

    scores: Array
    labels: Ints
    parameters: Array
    spread: float

    @property
    def slope(self) -> float:
        return float(self.parameters[0] / self.spread)

    def derivatives(self, rows: Ints | slice = slice(None)) -> tuple[Array, Array, Array]:
        """What the derivatives of rows' log loss, at the fit, are made of.

        Returns
        -------
        first : array, shape (n_rows, n_present)
        weight : array, shape (n_rows, n_present)
        centred : array, shape (n_rows, n_present, n_present)
            Class by parameter. The k-th derivative, k = 2 or 3, is the sum over classes of `weight`
            times the product of k `centred`.
        """
        scores, labels = self.scores[rows], self.labels[rows]
        n, n_classes = scores.shape
        own = np.broadcast_to(np.eye(n_classes)[:, 1:], (n, n_classes, n_classes - 1))
        features = np.concatenate([scores[:, :, None], own], axis=2)
        weight = np.exp(_log_proba(scores, self.parameters))
        centred = features - np.einsum("nc,nci->ni", weight, features)[:, None]
        return -centred[np.arange(n), labels], weight, centred

    def steepest(self) -> Array:
        """The direction in which the slope changes by 1 and the intercepts follow; (n_present,)."""
        _, curvature = _summed_derivatives(self.scores, self.labels, self.parameters)
        column = np.linalg.solve(curvature, np.eye(len(curvature))[0])
        return np.asarray(column / column[0])

    def derivatives_along(
        self, direction: Array, rows: Ints | slice = slice(None)
    ) -> tuple[Array, Array, Array]:
        """The same as `derivatives` with one parameter: the distance along `direction`.

        Returns
        -------
        first : array, shape (n_rows, 1)
        weight : array, shape (n_rows, n_present)
        centred : array, shape (n_rows, n_present, 1)
        """
        scores, labels = self.scores[rows], self.labels[rows]
        weight = np.exp(_log_proba(scores, self.parameters))
        along = scores * direction[0] + np.append(0.0, direction[1:])
        along -= np.einsum("nc,nc->n", weight, along)[:, None]
        return -along[np.arange(len(along)), labels][:, None], weight, along[..., None]


def recalibration(labels: Ints, proba: Array) -> Recalibration | None:
    """The fit of most likelihood, or None where there is none.

    There is none with one class, with scores that do not vary, and with scores that tell the
    classes apart without an error: any larger slope is then likelier still.

    Parameters
    ----------
    labels : array of int, shape (n_samples,)
    proba : array, shape (n_samples, n_classes)
        Classes without a label are left out.

    References
    ----------
    Cox, D. R. (1958). Two further applications of a model for binary regression. Biometrika
    45(3/4), 562-565.

    Examples
    --------
    >>> proba = np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]])
    >>> round(recalibration(np.array([0, 0, 1, 1, 0]), proba).slope, 3)
    0.25
    """
    present, numbered = np.unique(labels, return_inverse=True)
    scores = np.log(np.maximum(proba[:, present], SMALLEST_PROBA))
    scores -= scores.mean(axis=1, keepdims=True)
    spread = float(scores.std())
    if len(present) < 2 or spread < SMALLEST_STEP:
        return None
    parameters = _fit(scores / spread, numbered, spread)
    if parameters is None:
        return None
    return Recalibration(scores / spread, numbered, parameters, spread)


def _fit(scores: Array, labels: Ints, start: float) -> Array | None:
    at = np.zeros(scores.shape[1])
    at[0] = start
    for _ in range(N_STEPS):
        first, curvature = _summed_derivatives(scores, labels, at)
        if np.linalg.eigvalsh(curvature)[0] < SMALLEST_CURVATURE * len(labels):
            return None
        step = np.linalg.solve(curvature, first)
        if np.abs(step).max() < SMALLEST_STEP:
            return at
        at = at - _shortened(scores, labels, at, step)
    return None


def _log_proba(scores: Array, at: Array) -> Array:
    return log_softmax(at[0] * scores + np.append(0.0, at[1:]))


def _summed_derivatives(scores: Array, labels: Ints, at: Array) -> tuple[Array, Array]:
    """First and second derivatives of the loss, shapes (n_parameters,) and its square."""
    weight = np.exp(_log_proba(scores, at))
    mean = np.einsum("nc,nc->n", weight, scores)
    pulled = weight * (scores - mean[:, None])  # (n_samples, n_classes)
    first = weight.sum(axis=0) - np.bincount(labels, minlength=len(at))
    first[0] = mean.sum() - scores[np.arange(len(labels)), labels].sum()
    curvature = np.diag(weight.sum(axis=0)) - weight.T @ weight
    curvature[0] = curvature[:, 0] = pulled.sum(axis=0)
    curvature[0, 0] = np.einsum("nc,nc->", pulled, scores)
    return first, curvature


def _shortened(scores: Array, labels: Ints, at: Array, step: Array) -> Array:
    """The step, halved until it does not raise the loss."""
    limit = _loss(scores, labels, at) + 1e-12 * len(labels)
    for _ in range(N_STEPS):
        if _loss(scores, labels, at - step) <= limit:
            break
        step = step / 2.0
    return step


def _loss(scores: Array, labels: Ints, at: Array) -> float:
    return -float(_log_proba(scores, at)[np.arange(len(labels)), labels].sum())
