"""Calibration of each member before combining, or of the combined probabilities."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ensemble_kit.arrays import Array, Ints, group_numbers, log_softmax, softmax
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.inner_folds import inner_folds
from ensemble_kit.combiners.log_proba import clipped_log_proba
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.combiners.temperature import best_scale
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.seeding import generator

INNER_SPLITS = 4


class _Calibrated(Combiner):
    """Base of calibrated combiners: contains an inner combiner, which is stored with it."""

    is_fitted_to_labels = True

    def __init__(self, combiner: Combiner | None = None) -> None:
        self.combiner = combiner

    def _inner(self) -> Combiner:
        return MeanProba() if self.combiner is None else self.combiner.fresh()

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """The fitted values, and those of the inner combiner under `inner`."""
        plain, arrays = super().state()
        inner_plain, inner_arrays = self.inner_.state()
        return plain | {"inner": inner_plain}, arrays | {
            f"inner.{k}": v for k, v in inner_arrays.items()
        }

    def restore(self, plain: dict[str, Any], arrays: dict[str, Array]) -> Self:
        """Restore the values of `state`."""
        super().restore(plain, arrays)
        inner = {k.removeprefix("inner."): v for k, v in arrays.items() if k.startswith("inner.")}
        self.inner_ = self._inner().restore(plain["inner"], inner)
        return self


class TemperatureScaled(_Calibrated):
    """A combiner whose probabilities are sharpened or softened by one temperature.

    The temperature is fitted to predictions that are cross-fitted over inner folds of whole groups.
    The predicted class never changes.

    Parameters
    ----------
    combiner : Combiner, optional
        The mean by default.

    References
    ----------
    Guo, C., Pleiss, G., Sun, Y., & Weinberger, K. Q. (2017). On calibration of modern neural
    networks. ICML.

    Examples
    --------
    >>> logits = np.array([[[9.0, 0.0]], [[9.0, 0.0]], [[9.0, 0.0]], [[9.0, 0.0]]])
    >>> TemperatureScaled().fit(logits, [0, 0, 0, 1]).predict_proba(logits)[0].round(2)
    array([0.75, 0.25])
    """

    fitted_names = ("scale_",)

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:
        inner = self._inner()
        proba = inner_cross_fit(inner, logits, labels, groups)
        self.scale_ = best_scale(labels, _log(proba))
        self.inner_ = inner.fit(logits, labels, groups)

    def _combine(self, logits: Array) -> Combined:
        inner = self.inner_.combine(logits)
        return Combined(softmax(self.scale_ * _log(inner.proba)), inner.predicted, inner.tied)


def _log(proba: Array) -> Array:
    """Log-probability, finite for a probability of 0."""
    return np.log(np.maximum(proba, np.finfo(np.float32).tiny))


class CalibratedMembers(_Calibrated):
    """The members are combined after each was scaled by its own temperature.

    Parameters
    ----------
    combiner : Combiner, optional
        The mean by default.

    Examples
    --------
    >>> logits = np.array([[[9.0, 0.0]], [[9.0, 0.0]], [[9.0, 0.0]], [[9.0, 0.0]]])
    >>> CalibratedMembers().fit(logits, [0, 0, 0, 1]).predict_proba(logits)[0].round(2)
    array([0.75, 0.25])
    """

    fitted_names = ("scales_",)

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:
        z = _log(softmax(logits))
        self.scales_ = np.array([best_scale(labels, z[:, m]) for m in range(z.shape[1])])
        self.inner_ = self._inner().fit(self._calibrated(logits), labels, groups)

    def _calibrated(self, logits: Array) -> Array:
        return _log(softmax(logits)) * self.scales_[None, :, None]

    def _combine(self, logits: Array) -> Combined:
        return self.inner_.combine(self._calibrated(logits))


class DirichletMembers(_Calibrated):
    """The members are combined after a fitted linear map of each member's log-probabilities.

    Parameters
    ----------
    combiner : Combiner, optional
        The mean by default.
    ridge : float
        Penalty that shrinks each map to the identity, and its intercept to 0.

    References
    ----------
    Kull, M., Perello-Nieto, M., et al. (2019). Beyond temperature scaling: obtaining well-calibrated
    multi-class probabilities with Dirichlet calibration. NeurIPS.

    Examples
    --------
    >>> logits = np.array([[[9.0, 0.0]], [[9.0, 0.0]], [[9.0, 0.0]], [[9.0, 0.0]]])
    >>> DirichletMembers(ridge=1e-4).fit(logits, [0, 0, 0, 1]).predict_proba(logits)[0].round(2)
    array([0.75, 0.25])
    """

    fitted_names = ("maps_", "shifts_")

    def __init__(self, combiner: Combiner | None = None, ridge: float = 0.01) -> None:
        super().__init__(combiner)
        self.ridge = ridge

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:
        z = clipped_log_proba(logits)
        fitted = [_dirichlet_map(z[:, m], labels, self.ridge) for m in range(z.shape[1])]
        self.maps_ = np.stack([one[:-1] for one in fitted])  # (n_members, n_classes, n_classes)
        self.shifts_ = np.stack([one[-1] for one in fitted])
        self.inner_ = self._inner().fit(self._calibrated(logits), labels, groups)

    def _calibrated(self, logits: Array) -> Array:
        return np.einsum("nmc,mcd->nmd", clipped_log_proba(logits), self.maps_) + self.shifts_

    def _combine(self, logits: Array) -> Combined:
        return self.inner_.combine(self._calibrated(logits))


def _dirichlet_map(z: Array, labels: Ints, ridge: float) -> Array:
    """Map and intercept of least penalised log loss, shape (n_classes + 1, n_classes)."""
    from scipy.optimize import minimize

    n_samples, n_classes = z.shape
    x = np.concatenate([z, np.ones((n_samples, 1))], axis=1)
    truth = np.eye(n_classes)[labels]
    centre = np.concatenate([np.eye(n_classes), np.zeros((1, n_classes))])

    def loss(flat: Array) -> tuple[float, Array]:
        w = flat.reshape(centre.shape)
        log_proba = log_softmax(x @ w)
        slope = x.T @ (np.exp(log_proba) - truth) / n_samples + 2 * ridge * (w - centre)
        value = -(log_proba * truth).sum() / n_samples + ridge * ((w - centre) ** 2).sum()
        return float(value), slope.ravel()

    found = minimize(
        loss, centre.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-7}
    )
    return np.asarray(found.x.reshape(centre.shape))


def inner_cross_fit(
    combiner: Combiner,
    logits: Array,
    labels: Ints,
    groups: Ints,
) -> Array:
    """Cross-fitted probabilities of a combiner, inside a fit.

    Rules need no cross-fitting. With a single group, the probabilities are in-sample.
    """
    numbered = group_numbers(groups)
    n_folds = min(INNER_SPLITS, int(numbered.max()) + 1)
    if not combiner.is_fitted_to_labels or n_folds < 2:
        return combiner.fresh().fit(logits, labels, groups).predict_proba(logits)
    fold = inner_folds(labels, numbered, n_folds, generator(0, "inner-cross-fit"))
    present = np.unique(fold)
    fitted = combiner.fit_many(
        logits, labels, numbered, [np.flatnonzero(fold != k) for k in present]
    )
    proba = np.empty((len(labels), logits.shape[2]))
    for k, one in zip(present, fitted, strict=True):
        proba[fold == k] = one.predict_proba(logits[fold == k])
    return decided(proba).proba
