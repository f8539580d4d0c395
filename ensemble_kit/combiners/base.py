"""The contract of every combiner: a scikit-learn estimator over (n_samples, n_members, n_classes).

The estimator protocol of scikit-learn is implemented without importing it, which takes a second.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Bools, Ints, check_labels, check_logits, group_numbers
from ensemble_kit.combiners.metric_loss import ErrorCosts
from ensemble_kit.errors import DataError, UsageError, did_you_mean
from ensemble_kit.predictions.method_predictions import Combined, MethodPredictions
from ensemble_kit.predictions.quorum import complete_logits
from ensemble_kit.predictions.table import Predictions


class Combiner:
    """Base and contract of all combiners.

    A subclass sets plain parameters in `__init__`, fits in `_fit` (if it is fitted) and predicts in
    `_combine`. `ensemble_kit.testing.check_combiner` checks these rules:

    - `fit(logits, labels, groups=None)` returns `self`, and never changes its input;
    - `predict_proba` has shape (n_samples, n_classes), float64, rows that sum to 1;
    - rows are combined independently: predictions of a subset are a subset of the predictions;
    - `predict` returns the class of highest `predict_proba`, if there is no tie;
    - NaN is refused;
    - adding a constant to all logits of one (sample, member) changes nothing;
    - with `ignores_member_order`, permuting members changes nothing;
    - with `is_rule`, M copies of a member are combined to that member;
    - the same seed gives the same fit.

    With `gives_vote_shares`, `predict_proba` returns vote shares, not probabilities.
    """

    _estimator_type = "classifier"
    is_fitted_to_labels: ClassVar[bool] = False
    ignores_member_order: ClassVar[bool] = True
    is_rule: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    gives_vote_shares: ClassVar[bool] = False
    fitted_names: ClassVar[tuple[str, ...]] = ()

    classes_: Ints
    n_members_: int

    @property
    def can_fall_back(self) -> bool:
        """Whether it may be replaced by the mean of all members if it is not better."""
        return self.is_fitted_to_labels

    # -- fit and predict -------------------------------------------------------------------

    def fit(
        self, logits: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike | None = None
    ) -> Self:
        """Fit to rows whose logits come from models that did not see them.

        Parameters
        ----------
        logits : array-like, shape (n_samples, n_members, n_classes)
        labels : array-like of int, shape (n_samples,)
        groups : array-like of shape (n_samples,), optional
            Samples of one group (patient) stay together in every inner split.

        Raises
        ------
        DataError
            NaN, wrong shapes, or labels that are not class indices.
        """
        checked, truth, units = self._inputs(logits, labels, groups)
        self._note_shape(checked)
        self._fit(checked, truth, units)
        return self

    def fit_many(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike,
        groups: npt.ArrayLike | None,
        row_sets: Sequence[Ints],
    ) -> list[Self]:
        """One fitted copy per set of row positions; subclasses may fit all sets at once."""
        checked, truth, units = self._inputs(logits, labels, groups)
        return [self.fresh().fit(checked[rows], truth[rows], units[rows]) for rows in row_sets]

    def fresh(self) -> Self:
        """An unfitted copy with the same parameters."""
        params = self.get_params(deep=False)
        return type(self)(
            **{k: v.fresh() if isinstance(v, Combiner) else v for k, v in params.items()}
        )

    def combine(self, logits: npt.ArrayLike) -> Combined:
        """Probabilities, classes and ties at once.

        Parameters
        ----------
        logits : array-like, shape (n_samples, n_members, n_classes)
        """
        return self._combine(self._checked(logits))

    def predict_proba(self, logits: npt.ArrayLike) -> Array:
        """Class probabilities, float64 of shape (n_samples, n_classes)."""
        return self.combine(logits).proba

    def predict(self, logits: npt.ArrayLike) -> Ints:
        """Class indices, shape (n_samples,)."""
        return self.combine(logits).predicted

    def score(self, logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
        """Accuracy, as in scikit-learn's classifiers."""
        return float((self.predict(logits) == np.asarray(labels)).mean())

    # -- over tables -----------------------------------------------------------------------

    def fit_to(self, table: Predictions) -> Self:
        """A copy that is fitted to all rows of a table."""
        return self.fresh().fit(complete_logits(table), table.labels, table.groups)

    def fit_each(self, table: Predictions, row_sets: Sequence[Ints]) -> list[Self]:
        """One fitted copy per set of row positions of a table."""
        return self.fit_many(complete_logits(table), table.labels, table.groups, row_sets)

    def apply(self, table: Predictions) -> MethodPredictions:
        """Predictions for the rows of a table.

        With a quorum, rules combine the members that predicted the row, and weights are
        renormalised over them. Other fitted combiners use the mean probability of these members in
        place of a missing prediction.
        """
        found = self._apply(table) if table.quorum is None else self._apply_to_gaps(table)
        return MethodPredictions.of(found, table)

    def crossing(self, table: Predictions, fold: Ints) -> Ints:  # noqa: ARG002
        """The folds that cross-fitting uses, shape (n_samples,): by default those of the table."""
        return fold

    @property
    def leaves_members_out(self) -> bool:
        """Whether it can predict a row without some of the members that it was fitted to."""
        return not self.is_fitted_to_labels

    @property
    def chosen_member(self) -> int | None:
        """Position of the one member that predicts alone; None if several do."""
        return None

    def ranked_by(
        self,
        metric: str,  # noqa: ARG002
        error_costs: ErrorCosts | None,  # noqa: ARG002
        decide_by_cost: bool,  # noqa: ARG002
    ) -> Combiner:
        """The combiner for an evaluation by this metric: itself, unless it chooses by a metric."""
        return self

    # -- for subclasses --------------------------------------------------------------------

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:
        """Fit; `groups` are integers. Rules are not fitted."""

    def _combine(self, logits: Array) -> Combined:
        raise NotImplementedError

    def _apply(self, table: Predictions) -> Combined:
        return self.combine(table.logits)

    def _apply_to_gaps(self, table: Predictions) -> Combined:
        if not self.leaves_members_out:
            return self.combine(complete_logits(table))
        patterns, pattern_of = np.unique(table.available, axis=0, return_inverse=True)
        parts = []
        for k, present in enumerate(patterns):
            rows = np.flatnonzero(pattern_of.ravel() == k)
            names = [name for name, is_in in zip(table.member_names, present, strict=True) if is_in]
            some = dataclasses.replace(table.take(rows).select(names), quorum=None)
            parts.append((rows, self._apply_without(some, present)))
        return Combined.scattered(parts, len(table))

    def _apply_without(self, some: Predictions, present: Bools) -> Combined:  # noqa: ARG002
        """Predictions of the `present` members alone; `some` has only these members."""
        # The fit of a rule stores only the number of members.
        return self.fresh().fit(some.logits, some.labels)._apply(some)

    @staticmethod
    def _inputs(
        logits: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike | None
    ) -> tuple[Array, Ints, Ints]:
        checked = check_logits(logits)
        n_samples, _, n_classes = checked.shape
        truth = check_labels(labels, n_samples, n_classes)
        if n_samples == 0:
            raise DataError(
                "There are no samples to fit on",
                "a combiner needs at least one sample",
                "Check how the rows were selected",
            )
        if groups is not None and np.shape(groups) != (n_samples,):
            raise DataError(
                f"Groups have the shape {np.shape(groups)} for {n_samples} samples",
                "each sample needs one group",
                "Pass the groups of the same rows",
            )
        units = np.arange(n_samples) if groups is None else group_numbers(groups)
        return checked, truth, units

    def _note_shape(self, logits: Array) -> None:
        self.classes_ = np.arange(logits.shape[2])
        self.n_members_ = logits.shape[1]

    def _checked(self, logits: npt.ArrayLike) -> Array:
        if not hasattr(self, "classes_"):
            raise UsageError(
                f"{self!r} is not fitted",
                "a combiner must be fitted before it predicts",
                "Call fit(logits, labels) first",
            )
        checked = check_logits(logits)
        want = (self.n_members_, len(self.classes_))
        if checked.shape[1:] != want:
            raise DataError(
                f"The logits have (members, classes) = {checked.shape[1:]}; the combiner was fitted to {want}",
                "members and classes must be the same as in fit",
                "Select the same members, in the same order: predictions.select(names)",
            )
        return checked

    # -- scikit-learn's protocol -----------------------------------------------------------

    @classmethod
    def _parameter_names(cls) -> list[str]:
        found = inspect.signature(cls.__init__).parameters
        return [name for name in found if name not in ("self", "args", "kwargs")]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of `__init__`; with `deep`, also of inner combiners as `a__b`."""
        params: dict[str, Any] = {}
        for name in self._parameter_names():
            value = getattr(self, name)
            params[name] = value
            if deep and hasattr(value, "get_params") and not isinstance(value, type):
                params |= {f"{name}__{key}": inner for key, inner in value.get_params().items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; unknown names are errors."""
        for name, value in params.items():
            head, _, rest = name.partition("__")
            if head not in self._parameter_names():
                known = self._parameter_names()
                advice = did_you_mean(head, known) if known else "It has no parameters"
                raise UsageError(
                    f"{type(self).__name__} has no parameter '{head}'",
                    "only its own parameters can be set",
                    advice,
                )
            if rest:
                getattr(self, head).set_params(**{rest: value})
            else:
                setattr(self, head, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        shown = [
            f"{name}={value!r}"
            for name, value in self.get_params(deep=False).items()
            if repr(value) != repr(defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    # -- storage ---------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """The fitted values: plain JSON values, and arrays by name."""
        values = {name: getattr(self, name) for name in self.fitted_names}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        plain = {name: value for name, value in values.items() if name not in arrays}
        return {"n_members": self.n_members_, "n_classes": len(self.classes_)} | plain, arrays

    def restore(self, plain: dict[str, Any], arrays: dict[str, Array]) -> Self:
        """Restore the values of `state`."""
        self.n_members_ = int(plain["n_members"])
        self.classes_ = np.arange(int(plain["n_classes"]))
        stored = {**plain, **arrays}
        for name in self.fitted_names:
            setattr(self, name, stored[name])
        return self
