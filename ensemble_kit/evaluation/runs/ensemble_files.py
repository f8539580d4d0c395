"""An evaluated ensemble as plain values: the rows of `predictions.csv`, all of `metrics.json`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from ensemble_kit.evaluation.clinical.block import clinical_json
from ensemble_kit.evaluation.result import Evaluation
from ensemble_kit.evaluation.scores.per_class import per_class_json
from ensemble_kit.evaluation.scores.per_group import GroupMetrics
from ensemble_kit.evaluation.scores.per_image import MetricValues
from ensemble_kit.evaluation.scores.verdict import Verdict
from ensemble_kit.predictions.method_predictions import ABSTAINED, Combined
from ensemble_kit.predictions.table import Predictions

SCHEMA_VERSION = 1


def about_json(
    evaluation: Evaluation, oof: Predictions, test: Predictions | None
) -> dict[str, Any]:
    """The block `about` of `combiner.json`: the tables that the combiner was fitted to."""
    quorum = oof.quorum if test is None or oof.quorum is not None else test.quorum
    return {
        "member_names": list(oof.member_names),
        "class_names": list(oof.class_names),
        "manifest": oof.manifest_digest,
        "n_samples": len(oof),
        **({} if quorum is None else {"quorum": quorum}),
        **_decision(evaluation),
    }


def predictions_frame(
    evaluation: Evaluation, oof: Predictions, test: Predictions | None = None
) -> pd.DataFrame:
    """One row per image: `sample_id, group, split, label, predicted, p_<class> ...`.

    `split` is `oof` (cross-fitted) or `test`.
    """
    parts = [_frame(oof, evaluation.oof_combined)]
    if test is not None and evaluation.test_combined is not None:
        parts.append(_frame(test, evaluation.test_combined))
    return pd.concat(parts, ignore_index=True)


def _frame(table: Predictions, combined: Combined) -> pd.DataFrame:
    names = np.array(table.class_names)
    predicted = np.where(combined.predicted == ABSTAINED, "", names[combined.predicted])
    columns: dict[str, Any] = {
        "sample_id": table.sample_ids,
        "group": table.groups,
        "split": table.kind,
        "label": names[table.labels],
        "predicted": predicted,
    }
    columns |= {f"p_{name}": combined.proba[:, c] for c, name in enumerate(table.class_names)}
    return pd.DataFrame(columns)


def metrics_json(evaluation: Evaluation, oof: Predictions) -> dict[str, Any]:
    """Everything in `metrics.json`; undefined values are null."""
    return {
        "schema_version": SCHEMA_VERSION,
        "method": evaluation.name,
        "metric": evaluation.metric,
        "best_member": best_member_of(evaluation, oof),
        "split_by": oof.split_by,
        "group_kind": oof.group_kind,
        "member_names": list(oof.member_names),
        "class_names": list(oof.class_names),
        "positive": evaluation.positive,
        "average_precision_of": evaluation.ranked_class,
        **_decision(evaluation),
        "in_sample": None,
        "cross_fitted": None,
        "nested": None,
        "test": None,
        **{
            part: metric_values_json(values, oof.class_names)
            | _per_group_json(evaluation.per_group.get(part))
            | per_class_json(evaluation.per_class.get(part), oof.class_names)
            for part, values in evaluation.parts.items()
        },
        "differences": _differences(evaluation),
        "cross_fitted_minus_nested": {
            name: dataclasses.asdict(one) for name, one in evaluation.base_model_leakage.items()
        }
        or None,
        "corrected_for_choice": None
        if evaluation.corrected is None
        else dataclasses.asdict(evaluation.corrected),
        "clinical": None if evaluation.clinical is None else clinical_json(evaluation.clinical),
        "fell_back_to_mean": evaluation.fell_back,
        "verdicts": [_verdict_json(one) for one in evaluation.verdicts],
        "tests": [dataclasses.asdict(one) for one in evaluation.tests],
        "notes": list(evaluation.notes),
    }


def _verdict_json(one: Verdict) -> dict[str, Any]:
    return {
        "against": one.against,
        "metric": one.metric,
        "part": one.part,
        "word": one.word,
        "gain": dataclasses.asdict(one.effect),
        "n_compared": one.n_compared,
        "p_value": one.p_value,
        "sentence": one.sentence,
        "too_few": one.too_few,
    }


def _differences(evaluation: Evaluation) -> dict[str, Any]:
    """The block `differences` of `metrics.json`, by metric; null if undefined."""
    names = evaluation.cross_fitted.metrics
    lost = {name: evaluation.lost_on_test(name) for name in names}
    return {
        "in_sample_minus_cross_fitted": {name: evaluation.optimism(name) for name in names},
        "cross_fitted_minus_test": None if evaluation.test is None else lost,
    }


def best_member_of(evaluation: Evaluation, oof: Predictions) -> str | None:
    """The member that `best-member` chose; None for other methods."""
    chosen = evaluation.combiner.chosen_member
    return None if chosen is None else oof.member_names[chosen]


def _decision(evaluation: Evaluation) -> dict[str, Any]:
    """The decision rule and the costs of errors; empty without costs."""
    if evaluation.costs is None:
        return {}
    by_cost = evaluation.decided_by_cost and not evaluation.combiner.needs_labels
    return {
        "decision": "least expected cost" if by_cost else "likeliest class",
        "costs": evaluation.costs.as_mapping(),
    }


def _per_group_json(found: GroupMetrics | None) -> dict[str, Any]:
    """The block `per_group`; empty if every image is its own group."""
    if found is None:
        return {}
    block: dict[str, Any] = {
        "rule": found.rule,
        "n_groups": found.n_groups,
        "recognition_rate": dataclasses.asdict(found.recognition_rate),
    }
    if found.values is not None:
        block |= {
            "n_ties": found.values.n_ties,
            **{name: dataclasses.asdict(one) for name, one in found.values.metrics.items()},
        }
    return {"per_group": block}


def metric_values_json(values: MetricValues, class_names: tuple[str, ...]) -> dict[str, Any]:
    """`n, n_groups, n_ties, ...`, then `value, low, high` per metric."""
    return {
        "n": values.n,
        "n_groups": values.n_groups,
        "n_ties": values.n_ties,
        "n_abstained": values.n_abstained,
        "missing_classes": [class_names[c] for c in values.missing_classes],
        **{name: dataclasses.asdict(interval) for name, interval in values.metrics.items()},
    }
