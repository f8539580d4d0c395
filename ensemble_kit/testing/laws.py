"""Checks that every combiner must pass: functions of an unfitted combiner and a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.baselines import Oracle
from ensemble_kit.combiners.stacking.feature_combiner import FeatureCombiner
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing.toys import toy_predictions

ATOL = 1e-6


def check_combiner(combiner: Combiner, *, n_classes: int = 3, seed: int = 0) -> None:
    """Check every rule of `Combiner` on toy logits.

    Parameters
    ----------
    combiner : Combiner
        Copies are fitted.

    Raises
    ------
    AssertionError
        A check failed; the message names the rule.

    Examples
    --------
    >>> from ensemble_kit.combiners.rules.averaging import MeanProba
    >>> check_combiner(MeanProba())
    """
    table = toy_predictions(120, 4, n_classes, n_groups=20, n_features=6, seed=seed)
    for law in LAWS:
        law(combiner, table)


def _require(holds: bool, law: str, combiner: Combiner) -> None:
    if not holds:
        raise AssertionError(f"{combiner!r}: {law}")


def _fitted(combiner: Combiner, table: Predictions, logits: Array | None = None) -> Combiner:
    """A copy fitted to the table, or to other logits; with features if it needs them."""
    copy, given = combiner.fresh(), table.logits if logits is None else logits
    if isinstance(copy, FeatureCombiner):
        return copy.fit(given, table.labels, table.groups, table.features)
    return copy.fit(given, table.labels, table.groups)


def _proba(fitted: Combiner, logits: Array, table: Predictions) -> Array:
    """Probabilities for logits of the table's rows, with labels or features if it needs them."""
    if isinstance(fitted, Oracle):
        return fitted.combine_with_labels(logits, table.labels).proba
    if isinstance(fitted, FeatureCombiner):
        return fitted.predict_proba(logits, table.features)
    return fitted.predict_proba(logits)


def _same(a: Array, b: Array, atol: float = ATOL) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, atol=atol))


def rows_are_probabilities(combiner: Combiner, table: Predictions) -> None:
    """`predict_proba` is float64 of shape (n_samples, n_classes), in [0, 1]; rows sum to 1."""
    proba = _proba(_fitted(combiner, table), table.logits, table)
    _require(proba.shape == (len(table), table.n_classes), "proba has one row per sample", combiner)
    _require(proba.dtype == np.float64, "proba is float64", combiner)
    _require(bool((proba >= 0).all() and (proba <= 1 + ATOL).all()), "proba is in [0, 1]", combiner)
    _require(_same(proba.sum(axis=1), np.ones(len(table))), "rows of proba sum to 1", combiner)


def input_is_untouched(combiner: Combiner, table: Predictions) -> None:
    """Neither `fit` nor `predict_proba` changes its input."""
    logits, labels = table.logits.copy(), table.labels.copy()
    loose = dataclasses.replace(table)
    object.__setattr__(loose, "labels", labels)
    _proba(_fitted(combiner, loose, logits), logits, loose)
    untouched = np.array_equal(logits, table.logits) and np.array_equal(labels, table.labels)
    _require(untouched, "the input is untouched", combiner)


def rows_are_independent(combiner: Combiner, table: Predictions) -> None:
    """Predictions of a subset of the rows are a subset of the predictions."""
    fitted, rows = _fitted(combiner, table), np.array([5, 3, 77])
    whole = _proba(fitted, table.logits, table)[rows]
    part = _proba(fitted, table.logits[rows], table.take(rows))
    _require(_same(whole, part), "rows are combined independently", combiner)


def predict_agrees_with_proba(combiner: Combiner, table: Predictions) -> None:
    """`predict` is the class of highest `predict_proba`, if there is no tie."""
    if combiner.needs_labels:
        return
    out = _fitted(combiner, table).apply(table)
    ordered = np.sort(out.proba, axis=1)
    ahead = ordered[:, -1] - ordered[:, -2] > ATOL
    _require(
        bool((out.predicted == out.proba.argmax(axis=1))[ahead].all()),
        "predict agrees with predict_proba",
        combiner,
    )


def nan_is_refused(combiner: Combiner, table: Predictions) -> None:
    """NaN is refused in `fit` and in `predict`."""
    broken = table.logits.copy()
    broken[3, 1] = np.nan
    for attempt in (
        lambda: _fitted(combiner, table, broken),
        lambda: _proba(_fitted(combiner, table), broken, table),
    ):
        try:
            attempt()
        except DataError:
            continue
        _require(False, "NaN is refused", combiner)


def constants_do_not_matter(combiner: Combiner, table: Predictions) -> None:
    """Adding a constant to one (sample, member)'s logits changes nothing."""
    shift = np.random.default_rng(1).normal(size=(len(table), table.n_members, 1)).round(2)
    shifted = table.logits.astype(np.float64) + shift
    plain = _fitted(combiner, table)
    a = _proba(plain, table.logits.astype(np.float64), table)
    _require(_same(a, _proba(plain, shifted, table), 1e-4), "constants do not matter", combiner)


def member_order_does_not_matter(combiner: Combiner, table: Predictions) -> None:
    """Permuting members in `fit` and `predict` changes nothing, if so declared."""
    if not combiner.ignores_member_order:
        return
    turned = table.select(table.member_names[::-1])
    a = _proba(_fitted(combiner, table), table.logits, table)
    b = _proba(_fitted(combiner, turned), turned.logits, turned)
    _require(_same(a, b, 1e-4), "member order does not matter", combiner)


def a_repeated_member_is_that_member(combiner: Combiner, table: Predictions) -> None:
    """For rules, M copies of a member are combined to that member."""
    if not combiner.is_rule:
        return
    once, often = table.logits[:, :1], np.repeat(table.logits[:, :1], 5, axis=1)
    a = combiner.fresh().fit(once, table.labels).combine(once)
    b = combiner.fresh().fit(often, table.labels).combine(often)
    _require(_same(a.proba, b.proba), "a repeated member is that member", combiner)
    _require(np.array_equal(a.predicted, b.predicted), "a repeated member is that member", combiner)


def same_seed_same_fit(combiner: Combiner, table: Predictions) -> None:
    """Two fits with the same parameters give the same probabilities."""
    a = _proba(_fitted(combiner, table), table.logits, table)
    b = _proba(_fitted(combiner, table), table.logits, table)
    _require(np.array_equal(a, b), "same seed, same fit", combiner)


def unfitted_is_refused(combiner: Combiner, table: Predictions) -> None:
    """Predicting before `fit` is an error."""
    try:
        _proba(combiner.fresh(), table.logits, table)
    except UsageError:
        return
    _require(False, "unfitted is refused", combiner)


def other_members_are_refused(combiner: Combiner, table: Predictions) -> None:
    """Another number of members than in `fit` is an error."""
    try:
        _proba(_fitted(combiner, table), table.logits[:, :2], table)
    except DataError:
        return
    _require(False, "another number of members is refused", combiner)


def parameters_go_round(combiner: Combiner, table: Predictions) -> None:  # noqa: ARG001
    """`fresh` and scikit-learn's `clone` copy the parameters."""
    from sklearn.base import clone

    for copy in (combiner.fresh(), clone(combiner)):
        _require(repr(copy) == repr(combiner), "parameters survive a copy", combiner)


def probability_zero_is_legal(combiner: Combiner, table: Predictions) -> None:
    """A logit of minus infinity is a probability of 0, and gives no NaN."""
    certain = table.logits.astype(np.float64).copy()
    certain[::7, 0, 0] = -np.inf
    fitted = _fitted(combiner, table, certain)
    _require(
        bool(np.isfinite(_proba(fitted, certain, table)).all()),
        "-inf is a valid logit",
        combiner,
    )


LAWS: tuple[Callable[[Combiner, Predictions], None], ...] = (
    rows_are_probabilities,
    input_is_untouched,
    rows_are_independent,
    predict_agrees_with_proba,
    nan_is_refused,
    constants_do_not_matter,
    member_order_does_not_matter,
    a_repeated_member_is_that_member,
    same_seed_same_fit,
    unfitted_is_refused,
    other_members_are_refused,
    parameters_go_round,
    probability_zero_is_legal,
)
