"""Compare combiners in one tidy table, with a verdict on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.evaluation.caveats import merged_notes
from ensemble_kit.evaluation.cross_validation.baselines import MEAN
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.result import Evaluation
from ensemble_kit.evaluation.winner import winner
from ensemble_kit.predictions.nested import NestedFold
from ensemble_kit.predictions.table import Predictions


def compare(
    combiners: Mapping[str, Combiner],
    *,
    fit_on: Predictions,
    score_on: Predictions | None = None,
    protocol: Protocol | None = None,
    nested: Sequence[NestedFold] | None = None,
) -> pd.DataFrame:
    """Compare combiners, fitted on out-of-fold predictions, with best member, mean and oracle.

    Parameters
    ----------
    combiners : mapping of name to Combiner
    fit_on : Predictions
        Out-of-fold predictions. In-sample and cross-fitted metrics are computed on them.
    score_on : Predictions, optional
        Test predictions, used only for scoring.
    protocol : Protocol, optional
        Settings of the evaluation.
    nested : sequence of NestedFold, optional
        `run.nested_predictions()`: adds the part `nested`.

    Returns
    -------
    pandas.DataFrame
        One row per method, part and metric: `method, part, metric, value, low, high, n, n_groups,
        n_ties, verdict`. `attrs["verdict"]` is one sentence on the method with the best
        cross-fitted `attrs["metric"]`. `attrs["verdicts"]` has the sentences of all methods, and
        `attrs["notes"]` the caveats.

    Examples
    --------
    >>> import numpy as np
    >>> from ensemble_kit.combiners.rules.voting import MajorityVote
    >>> labels = np.arange(40) % 2
    >>> logits = {m: np.eye(2)[labels] for m in "abc"}
    >>> oof = Predictions.from_arrays(logits, labels, fold=np.arange(40) // 8)
    >>> scores = compare({"vote": MajorityVote()}, fit_on=oof)
    >>> scores.attrs["verdict"]
    'vote is not shown to differ from the best member: balanced accuracy 1.000 against 1.000, difference +0.000 (no interval, cross-fitted).'
    """
    protocol = protocol or Protocol()
    evaluations = evaluate_all(combiners, fit_on, score_on, protocol=protocol, nested=nested)
    return scores_table(evaluations, protocol)


def scores_table(evaluations: Mapping[str, Evaluation], protocol: Protocol) -> pd.DataFrame:
    """Evaluations as one tidy table."""
    rows = [
        {
            "method": name,
            "part": part,
            "metric": key,
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "n": values.n,
            "n_groups": values.n_groups,
            "n_ties": values.n_ties,
            "verdict": verdict_word(one, part, key),
        }
        for name, one in evaluations.items()
        for part, values in one.parts.items()
        for key, interval in values.metrics.items()
    ]
    table = pd.DataFrame.from_records(rows).astype({"value": float, "low": float, "high": float})
    table.attrs = {
        "metric": protocol.metric,
        "verdict": chosen_verdict(evaluations, protocol),
        "verdicts": [v.sentence for one in evaluations.values() for v in one.verdicts],
        "notes": all_notes(evaluations),
    }
    return table


def verdict_word(one: Evaluation, part: str, metric_name: str) -> str:
    """The verdict on this method against the best member in one word; empty without a verdict."""
    words = [
        v.word
        for v in one.verdicts
        if (v.part, v.metric, v.against) == (part, metric_name, "best-member")
    ]
    return words[0] if words else ""


def chosen(evaluations: Mapping[str, Evaluation], protocol: Protocol) -> Evaluation:
    """The best method by cross-validation; the mean if there are only baselines."""
    values = {name: one.cross_fitted[protocol.metric].value for name, one in evaluations.items()}
    return evaluations[winner(values, protocol.metric) or MEAN]


def chosen_verdict(evaluations: Mapping[str, Evaluation], protocol: Protocol) -> str:
    """The verdict on the best method against the best member, on the test part if there is one.

    If it was chosen among several methods, the sentence names their number.
    """
    best = chosen(evaluations, protocol)
    part = "test" if best.test is not None else "cross_fitted"
    outcome = next(v for v in best.verdicts if v.part == part and v.against == "best-member")
    if outcome.n_compared == 1:
        return outcome.sentence
    unseen = ", without using the test part" if part == "test" else ""
    return (
        f"{outcome.sentence} It was chosen among {outcome.n_compared} methods by its cross-fitted "
        f"{protocol.metric.replace('_', ' ')}{unseen}."
    )


def all_notes(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """The caveats of all methods, each once."""
    return merged_notes({name: one.notes for name, one in evaluations.items()})
