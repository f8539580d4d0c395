"""All metrics by name: how each is computed, and which direction is better."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.metrics import calibration, classification, ordinal, ranking, selective
from ensemble_kit.metrics.confusion import Confusion
from ensemble_kit.metrics.costs import EXPECTED_COST
from ensemble_kit.metrics.sufficient_statistics import Sums, sums_of
from ensemble_kit.predictions.method_predictions import decided

__all__ = ["DEFAULT_METRICS", "METRICS", "ORDINAL_METRICS", "Metric", "Sums", "metric"]


Bounds = tuple[float, float | None]


def _unit(n_classes: int) -> Bounds:  # noqa: ARG001
    return 0.0, 1.0


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric.

    Parameters
    ----------
    name : str
    higher_is_better : bool
    of_sums : callable, optional
        The metric as a function of `Sums` with any leading axes.
    of_table : callable, optional
        The metric as a function of (labels, proba, predicted), if it does not add up over samples.
        Without `predicted`, the most probable classes are used.
    aims_at : float, optional
        The ideal value, if neither higher nor lower is better. Such a metric has no verdict.
    bounds : callable
        The lowest and the highest value for a number of classes; None if there is no highest value.
    of_decisions : bool
        Whether it depends on decisions only, not on probabilities.
    swaps_classes : bool
        With two classes: whether it is computed for the first class instead of the second.
    """

    name: str
    higher_is_better: bool
    of_sums: Callable[[Sums], Array] | None = None
    of_table: Callable[..., float] | None = None
    aims_at: float | None = None
    bounds: Callable[[int], Bounds] = _unit
    of_decisions: bool = False
    swaps_classes: bool = False

    def of_first_class(self) -> Metric:
        """The same metric for the first of two classes, if it is computed for one class."""
        return dataclasses.replace(self, swaps_classes=self.name in OF_SECOND_CLASS)

    def of(self, labels: Ints, proba: Array, predicted: Ints) -> float:
        """The value of the metric for a whole table.

        Examples
        --------
        >>> proba = np.array([[0.8, 0.2], [0.6, 0.4]])
        >>> METRICS["accuracy"].of(np.array([0, 1]), proba, np.array([0, 0]))
        0.5
        """
        if self.of_table is not None:
            return float(self.of_table(*self.swapped(labels, proba), predicted))
        return float(self.of_sums(sums_of(labels, proba, predicted))) if self.of_sums else np.nan

    def swapped(self, labels: Ints, proba: Array) -> tuple[Ints, Array]:
        """Labels and probabilities with the class in question as the second."""
        return (1 - labels, proba[:, ::-1]) if self.swaps_classes else (labels, proba)


# With two classes, these metrics are computed for the second; AUROC is the same for both.
OF_SECOND_CLASS = frozenset(("average_precision",))


def _of_confusion(
    name: str,
    compute: Callable[[Confusion], Array],
    higher: bool = True,
    bounds: Callable[[int], Bounds] = _unit,
) -> Metric:
    return Metric(
        name, higher, of_sums=lambda sums: compute(sums.counts), bounds=bounds, of_decisions=True
    )


def _of_scores(name: str, compute: Callable[[Ints, Array], float]) -> Metric:
    """A metric of probabilities that does not depend on the predicted classes."""
    return Metric(name, True, of_table=lambda labels, proba, _=None: compute(labels, proba))


def _aurc(labels: Ints, proba: Array, predicted: Ints | None = None) -> float:
    """A metric of the decisions, ranked by their probability."""
    chosen = decided(proba).predicted if predicted is None else predicted
    return selective.aurc(*selective.ranked_decisions(labels, proba, chosen))


def _without_costs(confusion: Confusion) -> Array:  # noqa: ARG001
    raise UsageError(
        "The metric expected_cost needs a cost table",
        "no costs were given",
        "Add --costs costs.csv",
    )


def cost_metric(costs: Array) -> Metric:
    """Mean cost of the decisions.

    Parameters
    ----------
    costs : array, shape (n_classes, n_classes)
        True class by predicted class.

    Examples
    --------
    >>> from ensemble_kit.metrics.sufficient_statistics import sums_of
    >>> sums = sums_of([0, 1], np.array([[0.4, 0.6], [0.7, 0.3]]))
    >>> float(cost_metric(np.array([[0.0, 1.0], [10.0, 0.0]])).of_sums(sums))
    5.5
    """
    highest = max(float(np.max(costs)), 1e-12)
    return _of_confusion(
        EXPECTED_COST,
        lambda confusion: ordinal.cost(confusion, costs),
        False,
        lambda _: (0.0, highest),
    )


def _correlation(n_classes: int) -> Bounds:  # noqa: ARG001
    return -1.0, 1.0


def _no_highest(n_classes: int) -> Bounds:  # noqa: ARG001
    return 0.0, None


def _per_sample(total: Array, n: Array) -> Array:
    """A sum over its number of samples; NaN without samples."""
    with np.errstate(invalid="ignore"):
        return np.asarray(total / n)


def _brier(sums: Sums) -> Array:
    """Mean squared distance to the truth: summed over classes, halved for two, as in scikit-learn."""
    half = 0.5 if sums.counts.found.shape[-1] == 2 else 1.0
    return _per_sample(half * sums.brier, sums.n)


def _brier_bounds(n_classes: int) -> Bounds:
    return 0.0, 1.0 if n_classes == 2 else 2.0


def _steps(n_classes: int) -> Bounds:
    return 0.0, max(n_classes - 1.0, 1.0)


_ALL = (
    _of_confusion("accuracy", classification.accuracy),
    _of_confusion("balanced_accuracy", classification.balanced_accuracy),
    _of_confusion("macro_f1", classification.macro_f1),
    _of_confusion("macro_precision", classification.macro_precision),
    _of_confusion("macro_specificity", classification.macro_specificity),
    _of_confusion("mcc", classification.mcc, bounds=_correlation),
    _of_confusion("kappa", classification.cohen_kappa, bounds=_correlation),
    _of_scores("auroc", ranking.macro_auroc),
    _of_scores("average_precision", ranking.macro_average_precision),
    Metric(
        "log_loss",
        False,
        of_sums=lambda sums: _per_sample(sums.log_loss, sums.n),
        bounds=_no_highest,
    ),
    Metric("brier", False, of_sums=_brier, bounds=_brier_bounds),
    Metric("ece", False, of_sums=lambda sums: calibration.expected_calibration_error(sums.bins)),
    Metric(
        "ece_equal_mass",
        False,
        of_sums=lambda sums: calibration.expected_calibration_error(sums.mass_bins),
    ),
    Metric(
        "calibration_error_debiased",
        False,
        of_sums=lambda sums: calibration.debiased_calibration_error(sums.mass_bins),
    ),
    dataclasses.replace(
        _of_scores("calibration_slope", calibration.calibration_slope),
        aims_at=1.0,
        bounds=lambda _: (-np.inf, None),
    ),
    Metric("aurc", False, of_table=_aurc),
    Metric(
        "coverage",
        True,
        of_sums=lambda sums: _per_sample(sums.n_decided, sums.n),
        of_decisions=True,
    ),
    _of_confusion(
        "quadratic_weighted_kappa", ordinal.quadratic_weighted_kappa, bounds=_correlation
    ),
    _of_confusion("mean_absolute_error", ordinal.mean_absolute_error, False, _steps),
    _of_confusion("adjacent_errors", ordinal.adjacent_errors, higher=False),
    _of_confusion("far_errors", ordinal.far_errors, higher=False),
    _of_confusion(EXPECTED_COST, _without_costs, higher=False),
)
METRICS = {metric.name: metric for metric in _ALL}
# Averages over classes: their meaning changes if a class is missing.
OVER_CLASSES = frozenset(
    (
        "balanced_accuracy",
        "macro_f1",
        "macro_precision",
        "macro_specificity",
        "auroc",
        "average_precision",
        "calibration_slope",
    )
)
DEFAULT_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "macro_precision",
    "macro_specificity",
    "mcc",
    "kappa",
    "auroc",
    "average_precision",
    "log_loss",
    "brier",
    "ece",
    "ece_equal_mass",
    "calibration_error_debiased",
    "calibration_slope",
    "aurc",
)
# Usual names of metrics, for the advice on an unknown one.
ALIASES = {
    "acc": "accuracy",
    "auc": "auroc",
    "roc_auc": "auroc",
    "auprc": "average_precision",
    "pr_auc": "average_precision",
    "bacc": "balanced_accuracy",
    "bal_acc": "balanced_accuracy",
    "recall": "balanced_accuracy",
    "sensitivity": "balanced_accuracy",
    "specificity": "macro_specificity",
    "precision": "macro_precision",
    "ppv": "macro_precision",
    "f1": "macro_f1",
    "f1_score": "macro_f1",
    "f1_macro": "macro_f1",
    "cohen_kappa": "kappa",
    "qwk": "quadratic_weighted_kappa",
    "matthews": "mcc",
    "nll": "log_loss",
    "cross_entropy": "log_loss",
    "mae": "mean_absolute_error",
}
ORDINAL_METRICS = (
    "quadratic_weighted_kappa",
    "mean_absolute_error",
    "adjacent_errors",
    "far_errors",
)


def metric(name: str) -> Metric:
    """The metric called `name`.

    Examples
    --------
    >>> metric("log_loss").higher_is_better
    False
    """
    if name not in METRICS:
        raise UsageError(
            f"Unknown metric '{name}'",
            f"the metrics are {', '.join(sorted(METRICS))}",
            did_you_mean(ALIASES.get(name.lower().replace("-", "_"), name), METRICS),
        )
    return METRICS[name]
