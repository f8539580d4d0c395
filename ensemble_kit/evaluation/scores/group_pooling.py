"""Metrics per patient of all parts, pooled by the protocol's rule or by a fitted rule.

A fitted rule that is not better than the mean is replaced by the mean. The fit and this choice are
both cross-fitted over patients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.combiners.base import Combined
from ensemble_kit.evaluation.cross_validation.cross_fit import fold_of
from ensemble_kit.evaluation.cross_validation.fallback import beats, with_fallback
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.scores.fitted_pooling import (
    PoolingRule,
    cross_fitted_pooling,
    fit_pooling,
)
from ensemble_kit.evaluation.scores.per_group import (
    FITTED,
    PER_GROUP_METRICS,
    GroupAnswers,
    GroupFigures,
    has_larger_groups,
    is_mixed,
    judge_groups,
    pooled,
    pooled_answers,
)
from ensemble_kit.metrics import metric
from ensemble_kit.metrics.costs import EXPECTED_COST
from ensemble_kit.predictions.table import Predictions

Ints = npt.NDArray[np.int64]
LOG_LOSS = metric("log_loss")
FELL_BACK = "mean (fitted no better)"


def figures_per_group(
    parts: Mapping[str, Mapping[str, Combined]],
    tested: Mapping[str, Combined],
    oof: Predictions,
    test: Predictions | None,
    protocol: Protocol,
) -> dict[str, dict[str, GroupFigures]]:
    """Metrics per patient by part and method; empty if every image is its own group."""
    is_fitted = protocol.pool == FITTED and has_larger_groups(oof)
    pooled = fitted_group_answers(parts, tested, oof, test) if is_fitted else {}
    tables = {part: (answers, oof) for part, answers in parts.items()}
    if test is not None:
        tables["test"] = (tested, test)
    rule = "mean" if protocol.pool == FITTED else protocol.pool
    metrics = [*PER_GROUP_METRICS, *((EXPECTED_COST,) if protocol.costs is not None else ())]
    return {
        part: judge_groups(
            answers,
            np.asarray(table.labels),
            table.groups,
            table.n_classes,
            rule=rule,
            answers=_decided(
                pooled.get(part)
                or pooled_answers(answers, np.asarray(table.labels), table.groups, rule),
                table,
                protocol,
            ),
            metrics=[protocol.resolved(name, table.class_names) for name in metrics],
            level=protocol.level,
            intervals=protocol.intervals,
        )
        for part, (answers, table) in tables.items()
        if has_larger_groups(table)
    }


def _decided(
    answers: Mapping[str, GroupAnswers], table: Predictions, protocol: Protocol
) -> dict[str, GroupAnswers]:
    """Classes as the protocol decides; the oracle's classes stay, since it uses the labels."""
    return {
        name: one
        if name == "oracle"
        else dataclasses.replace(one, combined=protocol.decided(one.combined, table.class_names))
        for name, one in answers.items()
    }


def fitted_group_answers(
    parts: Mapping[str, Mapping[str, Combined]],
    tested: Mapping[str, Combined],
    oof: Predictions,
    test: Predictions | None,
) -> dict[str, dict[str, GroupAnswers]]:
    """Predictions per patient by part and method.

    Parameters
    ----------
    parts : mapping of part to mapping of method to Combined
        Predictions of the images of `oof`: `cross_fitted`, and `in_sample`, `nested`.
    tested : mapping of method to Combined
        Predictions of the images of `test`.

    Returns
    -------
    dict of part to dict of method to GroupAnswers
        Empty if the images of a patient have several labels. The rule for new patients is fitted to
        the cross-fitted predictions. In the parts `cross_fitted` and `nested` the rule is fitted to
        the patients of other folds. The same patients decide whether its log loss is lower than
        that of the mean.
    """
    labels = np.asarray(oof.labels)
    if oof.split_by == "image" or is_mixed(labels, oof.groups):
        return {}
    numbered, truth, fold = _patients(oof)
    rules = {
        name: _final_rule(one, oof, numbered, truth, fold)
        for name, one in parts["cross_fitted"].items()
    }
    out: dict[str, dict[str, GroupAnswers]] = {}
    for part, answers in parts.items():
        out[part] = {
            name: _applied(rules[name], one, oof)
            if part == "in_sample"
            else _named(_crossed(one, oof, numbered, truth, fold), rules[name])
            for name, one in answers.items()
        }
    if test is not None and not is_mixed(np.asarray(test.labels), test.groups):
        out["test"] = {name: _applied(rules[name], one, test) for name, one in tested.items()}
    return out


def _patients(oof: Predictions) -> tuple[Ints, Ints, Ints]:
    """The number of each image's patient; each patient's label and fold."""
    _, first, numbered = np.unique(oof.groups, return_index=True, return_inverse=True)
    return numbered.astype(np.int64), np.asarray(oof.labels)[first], fold_of(oof)[first]


def _crossed(
    combined: Combined, oof: Predictions, numbered: Ints, truth: Ints, fold: Ints
) -> Combined:
    ours = cross_fitted_pooling(combined.proba, truth, numbered, fold)
    mean = pooled(combined, np.asarray(oof.labels), oof.groups)[0]
    return with_fallback(ours, mean, truth, fold, LOG_LOSS)


def _final_rule(
    combined: Combined, oof: Predictions, numbered: Ints, truth: Ints, fold: Ints
) -> PoolingRule | None:
    """The rule for new patients; None if it is not better than the mean, cross-fitted."""
    ours = cross_fitted_pooling(combined.proba, truth, numbered, fold)
    mean = pooled(combined, np.asarray(oof.labels), oof.groups)[0]
    if not beats(ours, mean, truth, LOG_LOSS):
        return None
    return fit_pooling(combined.proba, truth, numbered)


def _applied(rule: PoolingRule | None, combined: Combined, table: Predictions) -> GroupAnswers:
    if rule is None:
        return _named(pooled(combined, np.asarray(table.labels), table.groups)[0], None)
    numbered = np.unique(table.groups, return_inverse=True)[1].astype(np.int64)
    return _named(rule.apply(combined.proba, numbered), rule)


def _named(combined: Combined, rule: PoolingRule | None) -> GroupAnswers:
    return GroupAnswers(combined, FELL_BACK if rule is None else str(rule), rule)
