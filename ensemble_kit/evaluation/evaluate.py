"""Evaluate combiners: in-sample, cross-fitted and test metrics, beside the baselines.

Everything is fitted on out-of-fold predictions only. The test table is used last, for scoring.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.evaluation.caveats import (
    abstention_note,
    below_best_note,
    combiner_notes,
    constant_notes,
    cost_note,
    interval_note,
    nested_note,
    order_note,
    replaced_note,
    table_notes,
)
from ensemble_kit.evaluation.checks import check_tables
from ensemble_kit.evaluation.cross_validation.all_parts import AllParts, predict_all_parts
from ensemble_kit.evaluation.cross_validation.baselines import (
    BASELINES,
    MEAN,
    REFERENCE_METHODS,
    with_baselines,
)
from ensemble_kit.evaluation.cross_validation.fallback import is_better
from ensemble_kit.evaluation.cross_validation.nested import base_model_leakage
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.result import Evaluation, replaced_name
from ensemble_kit.evaluation.scores.baseline_tests import BaselineTest, baseline_tests
from ensemble_kit.evaluation.scores.per_class import ClassMetrics, metrics_per_class
from ensemble_kit.evaluation.scores.per_group import has_larger_groups, metrics_per_group
from ensemble_kit.evaluation.scores.per_image import MetricValues, Scored, score_methods
from ensemble_kit.evaluation.scores.verdict import PARTS, Verdict, corrected_verdict, verdicts
from ensemble_kit.evaluation.uncertainty.selection_bias import CorrectedChoice, corrected_choice
from ensemble_kit.evaluation.winner import simplest_first, winner
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.nested import NestedFold
from ensemble_kit.predictions.table import Predictions


def evaluate(
    combiner: Combiner,
    oof: Predictions,
    test: Predictions | None = None,
    *,
    protocol: Protocol | None = None,
    nested: Sequence[NestedFold] | None = None,
) -> Evaluation:
    """Fit, cross-fit and evaluate one combiner.

    Parameters
    ----------
    combiner : Combiner
        Copies are fitted.
    oof : Predictions
        Out-of-fold predictions, to which the combiner is fitted.
    test : Predictions, optional
        Test predictions, used only for scoring.
    protocol : Protocol, optional
    nested : sequence of NestedFold, optional
        `run.nested_predictions()`: adds nested cross-validation.

    Raises
    ------
    DataError
        The test table has other members or classes, or groups of the out-of-fold table.

    Examples
    --------
    >>> from ensemble_kit.combiners.rules.averaging import MeanProba
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(40) % 2
    >>> logits = {m: rng.normal(size=(40, 2)) + np.eye(2)[labels] for m in "abc"}
    >>> oof = Predictions.from_arrays(logits, labels, fold=np.arange(40) // 8)
    >>> result = evaluate(MeanProba(), oof, protocol=Protocol(n_resamples=200))
    >>> result.cross_fitted.n, result.cross_fitted["accuracy"].value == result.in_sample["accuracy"].value
    (40, True)
    """
    evaluations = evaluate_all({"ensemble": combiner}, oof, test, protocol=protocol, nested=nested)
    return evaluations["ensemble"]


def evaluate_all(
    combiners: Mapping[str, Combiner],
    oof: Predictions,
    test: Predictions | None = None,
    *,
    protocol: Protocol | None = None,
    nested: Sequence[NestedFold] | None = None,
) -> dict[str, Evaluation]:
    """Evaluate several combiners on the same rows and resamples, with best member, mean and oracle.

    Returns
    -------
    dict of name to Evaluation
        The baselines `best-member`, `mean` and `oracle` are always among them.
    """
    protocol = protocol or Protocol()
    check_tables(oof, test)
    everyone = with_baselines(combiners, protocol, oof.class_names)
    made = predict_all_parts(everyone, oof, test, nested, protocol)
    scored = _scored(made, protocol)
    best = _best(scored["cross_fitted"], protocol)
    correction = _correction(made.crossed, oof, protocol)
    all_verdicts = _verdicts(scored, made.fell_back, oof, protocol, best, correction)
    notes, own = _notes(made, scored, protocol), _own_notes(made, protocol)
    per_group = metrics_per_group(made.predictions, made.tables, protocol)
    per_class, tests = _per_class(made, protocol), _tests(made)
    leakage = base_model_leakage(scored["cross_fitted"], scored.get("nested", {}), protocol.level)

    def values(part: str, name: str) -> MetricValues | None:
        return scored[part][name].values if part in scored else None

    return {
        name: Evaluation(
            name, made.fitted[name],
            scored["in_sample"][name].values, scored["cross_fitted"][name].values,
            values("test", name), made.crossed[name], made.predictions.get("test", {}).get(name),
            all_verdicts.get(name, ()), notes + own[name], fell_back=name in made.fell_back,
            per_group={part: of[name] for part, of in per_group.items() if name in of},
            per_class={part: of[name] for part, of in per_class.items() if name in of},
            tests=tests.get(name, ()), nested=values("nested", name),
            base_model_leakage=leakage.get(name, {}), costs=protocol.costs,
            decided_by_cost=protocol.decide_by_cost,
            corrected=correction if name == best else None, positive=protocol.positive,
            ranked_class=protocol.ranked_class(oof.class_names), metric=protocol.metric,
        )
        for name in everyone
    }  # fmt: skip


def _scored(made: AllParts, protocol: Protocol) -> dict[str, dict[str, Scored]]:
    """Metrics by part and method; in-sample predictions that equal the cross-fitted ones once."""
    inside = made.predictions["in_sample"]
    parts = dict(made.predictions) | {
        "in_sample": {n: one for n, one in inside.items() if one is not made.crossed[n]}
    }
    found = {part: _scored_part(of, made.tables[part], protocol) for part, of in parts.items()}
    found["in_sample"] = found["cross_fitted"] | found["in_sample"]
    return found


def _notes(
    made: AllParts, scored: Mapping[str, Mapping[str, Scored]], protocol: Protocol
) -> tuple[str, ...]:
    """Caveats on the metrics of all methods."""
    oof, test = made.tables["cross_fitted"], made.tables.get("test")
    notes = table_notes(oof, test) + ((nested_note(oof),) if "nested" in scored else ())
    notes += (cost_note(),) if protocol.decide_by_cost else ()
    notes += (order_note(oof),) if protocol.takes_an_order(oof) else ()
    notes += interval_note(scored["cross_fitted"], oof, "cross-fitted")
    return notes + (() if test is None else interval_note(scored["test"], test, "test"))


def _own_notes(made: AllParts, protocol: Protocol) -> dict[str, tuple[str, ...]]:
    """Caveats on the metrics of each method."""
    tested = made.predictions.get("test", {})
    below = _below_best(made, protocol)
    return {
        name: _constant(name, made)
        + combiner_notes(one)
        + abstention_note(name, made.crossed[name], tested.get(name))
        + ((replaced_note(name),) if name in made.fell_back else ())
        + ((below_best_note(name),) if name in below else ())
        for name, one in made.combiners.items()
    }


def _constant(name: str, made: AllParts) -> tuple[str, ...]:
    """Caveats on the parts where a method predicts one class for all images."""
    if made.combiners[name].needs_labels:
        return ()
    return tuple(
        note
        for part in ("test", "cross_fitted")
        if part in made.predictions
        for table in (made.tables[part],)
        for note in constant_notes(
            name, made.predictions[part][name], np.asarray(table.labels), table.class_names,
            PARTS[part],
        )
    )  # fmt: skip


def _best(crossed: Mapping[str, Scored], protocol: Protocol) -> str | None:
    """The method that is best cross-fitted; the test part is not used."""
    values = {name: one.values[protocol.metric].value for name, one in crossed.items()}
    return winner(values, protocol.metric)


def _correction(
    crossed: Mapping[str, Combined], oof: Predictions, protocol: Protocol
) -> CorrectedChoice | None:
    """The best method's metric, corrected for the choice; None if nothing was chosen."""
    methods = {
        name: crossed[name] for name in simplest_first(crossed) if name not in REFERENCE_METHODS
    }
    if len(methods) < 2 or not protocol.intervals or oof.n_groups < 2:
        return None
    return corrected_choice(
        methods, {name: crossed[name] for name in BASELINES}, np.asarray(oof.labels), oof.groups,
        oof.n_classes, wanted=protocol.verdict_metric(oof.class_names), n_resamples=protocol.n_resamples,
        seed=protocol.seed,
    )  # fmt: skip


def _below_best(made: AllParts, protocol: Protocol) -> list[str]:
    """Fitted methods that are not better than the best member, without replaced methods."""
    oof = made.tables["cross_fitted"]
    labels, wanted = np.asarray(oof.labels), protocol.verdict_metric(oof.class_names)
    fitted = [
        n
        for n, one in made.combiners.items()
        if n not in REFERENCE_METHODS and one.is_fitted_to_labels and n not in made.fell_back
    ]
    best = made.crossed["best-member"]
    return [n for n in fitted if not is_better(made.crossed[n], best, labels, wanted)]


def _scored_part(
    tables: Mapping[str, Combined], table: Predictions, protocol: Protocol
) -> dict[str, Scored]:
    if not tables:
        return {}
    abstained = any(one.n_abstained for one in tables.values())
    return score_methods(
        tables,
        np.asarray(table.labels),
        table.groups,
        table.n_classes,
        metrics=protocol.all_metrics(table, abstained=abstained),
        level=protocol.level,
        intervals=protocol.intervals,
    )


def _verdicts(
    scored: Mapping[str, Mapping[str, Scored]],
    replaced: Collection[str],
    oof: Predictions,
    protocol: Protocol,
    best: str | None,
    correction: CorrectedChoice | None,
) -> dict[str, tuple[Verdict, ...]]:
    """Every method against the baselines, on the parts that it was not fitted to.

    The best method was chosen by its cross-fitted metric. Its cross-fitted verdict uses the gain that
    is corrected for the choice; its test verdict needs no correction. The mean is fixed in advance,
    so its verdict against the best member has an ordinary interval.
    """
    found: dict[str, list[Verdict]] = {}
    for part in [p for p in ("cross_fitted", "nested", "test") if p in scored]:
        methods = {name: one for name, one in scored[part].items() if name not in REFERENCE_METHODS}
        alone = {best: methods[best]} if part == "test" and best in methods else {}
        for against in BASELINES:
            all_verdicts: dict[str, Verdict] = {}
            plain_mean = {} if against == MEAN else {MEAN: scored[part][MEAN]}
            for some in (methods, alone, plain_mean):
                all_verdicts |= verdicts(
                    some,
                    against,
                    scored[part][against],
                    metric_name=protocol.verdict_metric(oof.class_names),
                    part=part,
                    group_kind=oof.group_kind,
                    level=protocol.level,
                    # Nested: the fallback is decided in each fold.
                    shown={name: replaced_name(name) for name in replaced if part != "nested"},
                    n_compared=1 if some is plain_mean else len(methods),
                )
            if part == "cross_fitted" and best is not None and correction is not None:
                all_verdicts[best] = corrected_verdict(
                    all_verdicts[best], correction.gains.get(against)
                )
            for name, one in all_verdicts.items():
                found.setdefault(name, []).append(one)
    return {name: tuple(some) for name, some in found.items()}


def _per_class(
    made: AllParts, protocol: Protocol
) -> dict[str, dict[str, tuple[ClassMetrics, ...]]]:
    """Metrics of each class, cross-fitted and on the test part, without the oracle."""
    return {
        part: metrics_per_class(
            {n: one for n, one in of.items() if not made.combiners[n].needs_labels},
            made.tables[part],
            protocol,
        )
        for part, of in made.predictions.items()
        if part in ("cross_fitted", "test")
    }


def _tests(made: AllParts) -> dict[str, tuple[BaselineTest, ...]]:
    """Image-level tests, on parts where no image shares a group with another."""
    found: dict[str, tuple[BaselineTest, ...]] = {}
    for part in [p for p in ("cross_fitted", "test") if p in made.predictions]:
        table = made.tables[part]
        if has_larger_groups(table):
            continue
        methods = {name: one for name, one in made.predictions[part].items() if name != "oracle"}
        tests = baseline_tests(methods, np.asarray(table.labels), baselines=BASELINES, part=part)
        found |= {name: (*found.get(name, ()), *some) for name, some in tests.items()}
    return found
