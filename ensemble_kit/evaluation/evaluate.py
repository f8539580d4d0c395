"""Evaluate combiners: in-sample, cross-fitted and test metrics, beside the baselines.

Everything is fitted on out-of-fold predictions only; the test table is looked at last. Writes
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.evaluation.caveats import (
    abstention_note,
    below_best_note,
    combiner_notes,
    cost_note,
    interval_note,
    order_note,
    replaced_note,
    table_notes,
)
from ensemble_kit.evaluation.checks import check_tables
from ensemble_kit.evaluation.cross_validation.baselines import (
    BASELINES,
    REFERENCE_METHODS,
    with_baselines,
)
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit
from ensemble_kit.evaluation.cross_validation.fallback import beats, fall_back, may_fall
from ensemble_kit.evaluation.cross_validation.nested import couplings, nested_answers, nested_note
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.result import Evaluation, replaced_name
from ensemble_kit.evaluation.scores.baseline_tests import BaselineTest, baseline_tests
from ensemble_kit.evaluation.scores.per_class import ClassFigures, figures_per_class
from ensemble_kit.evaluation.scores.per_group import figures_per_group, has_larger_groups
from ensemble_kit.evaluation.scores.per_image import Scored, judge
from ensemble_kit.evaluation.scores.verdict import Verdict, corrected_verdict, verdicts
from ensemble_kit.evaluation.uncertainty.selection_bias import CorrectedChoice, corrected_choice
from ensemble_kit.evaluation.winner import simplest_first, winner
from ensemble_kit.predictions.method_predictions import Combined, MethodPredictions
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
    """Fit, cross-fit and judge one combiner.

    Parameters
    ----------
    combiner : Combiner
        Left as it is.
    oof : Predictions
        Out-of-fold rows: what is learnt from.
    test : Predictions, optional
        Rows that no fold saw: only scored.
    protocol : Protocol, optional
    nested : sequence of NestedFold, optional
        `run.nested_predictions()`: adds the strict figures, blind to each fold judged.

    Raises
    ------
    DataError
        A test table of other members or classes, or with groups of the out-of-fold table.

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
    judged = evaluate_all({"ensemble": combiner}, oof, test, protocol=protocol, nested=nested)
    return judged["ensemble"]


def evaluate_all(
    combiners: Mapping[str, Combiner],
    oof: Predictions,
    test: Predictions | None = None,
    *,
    protocol: Protocol | None = None,
    nested: Sequence[NestedFold] | None = None,
) -> dict[str, Evaluation]:
    """Judge several combiners over the same rows and resamples, with best member, mean and oracle.

    Returns
    -------
    dict of name to Evaluation
        The baselines `best-member`, `mean` and `oracle` are always among them.
    """
    protocol = protocol or Protocol()
    check_tables(oof, test)
    everyone = with_baselines(combiners, protocol, oof.class_names)
    fitted = {name: one.fit_to(oof) for name, one in everyone.items()}
    crossed = {
        name: _decided(one, cross_fit(one, oof), oof, protocol) for name, one in everyone.items()
    }
    fallen, crossed = fall_back(everyone, crossed, oof, protocol)
    for name in fallen:
        fitted[name] = fitted["mean"]
    inside = {
        name: _decided(one, one.apply(oof), oof, protocol)
        if one.is_fitted_to_labels
        else crossed["mean" if name in fallen else name]
        for name, one in fitted.items()
    }
    judged = {
        "in_sample": _judge(
            {n: t for n, t in inside.items() if t is not crossed[n]}, oof, protocol
        ),
        "cross_fitted": _judge(crossed, oof, protocol),
    }
    judged["in_sample"] = judged["cross_fitted"] | judged["in_sample"]
    answers = {"in_sample": inside, "cross_fitted": crossed}
    if nested is not None:
        answers["nested"] = _strict(everyone, nested, oof, protocol)
        judged["nested"] = _judge(answers["nested"], oof, protocol)
    coupled = couplings(judged["cross_fitted"], judged.get("nested", {}), protocol.level)
    tested: dict[str, MethodPredictions] = {}
    if test is not None:
        tested = {
            name: _decided(one, one.apply(test), test, protocol) for name, one in fitted.items()
        }
        judged["test"] = _judge(tested, test, protocol)
    notes = table_notes(oof, test) + ((nested_note(oof),) if nested is not None else ())
    notes += (cost_note(),) if protocol.decide_by_cost else ()
    notes += (order_note(oof),) if protocol.takes_an_order(oof) else ()
    notes += below_best_note(*_below_best(everyone, crossed, fallen, oof, protocol))
    tables = dict.fromkeys(answers, oof)
    if test is not None:
        answers["test"], tables["test"] = tested, test
    per_group = figures_per_group(answers, tables, protocol)
    per_class = {"cross_fitted": _per_class(everyone, crossed, oof, protocol)}
    if test is not None:
        per_class["test"] = _per_class(everyone, tested, test, protocol)
    tests = _tests("cross_fitted", crossed, oof)
    if test is not None:
        more = _tests("test", tested, test)
        tests = {name: some + more[name] for name, some in tests.items()}
    best = _best(judged["cross_fitted"], protocol)
    correction = _correction(crossed, oof, protocol)
    said = _verdicts(judged, fallen, oof, protocol, best, correction)
    notes += interval_note(judged["cross_fitted"], oof, "cross-fitted")
    if test is not None:
        notes += interval_note(judged["test"], test, "test")
    return {
        name: Evaluation(
            name,
            fitted[name],
            judged["in_sample"][name].figures,
            judged["cross_fitted"][name].figures,
            judged["test"][name].figures if tested else None,
            crossed[name],
            tested.get(name),
            said.get(name, ()),
            notes
            + combiner_notes(everyone[name])
            + abstention_note(name, crossed[name], tested.get(name))
            + ((replaced_note(name),) if name in fallen else ()),
            fell_back=name in fallen,
            per_group={part: of[name] for part, of in per_group.items() if name in of},
            per_class={part: of[name] for part, of in per_class.items() if name in of},
            tests=tests.get(name, ()),
            nested=judged["nested"][name].figures if nested is not None else None,
            coupling=coupled.get(name, {}),
            costs=protocol.costs,
            decided_by_cost=protocol.decide_by_cost,
            corrected=correction if name == best else None,
            positive=protocol.positive,
            ranked_class=protocol.ranked_class(oof.class_names),
            metric=protocol.metric,
        )
        for name in everyone
    }


def _best(crossed: Mapping[str, Scored], protocol: Protocol) -> str | None:
    """The method that is best cross-fitted; the test part takes no part in the choice."""
    values = {name: one.figures[protocol.metric].value for name, one in crossed.items()}
    return winner(values, protocol.metric)


def _correction(
    crossed: Mapping[str, Combined], oof: Predictions, protocol: Protocol
) -> CorrectedChoice | None:
    """The best method's metric, corrected for the choice; None where there was none."""
    methods = {
        name: crossed[name] for name in simplest_first(crossed) if name not in REFERENCE_METHODS
    }
    if len(methods) < 2 or not protocol.intervals or oof.n_groups < 2:
        return None
    return corrected_choice(
        methods, {name: crossed[name] for name in BASELINES}, np.asarray(oof.labels), oof.groups,
        oof.n_classes, wanted=protocol.figure(oof.class_names), n_resamples=protocol.n_resamples,
        seed=protocol.seed,
    )  # fmt: skip


def _below_best(
    everyone: Mapping[str, Combiner],
    crossed: Mapping[str, Combined],
    fallen: Collection[str],
    oof: Predictions,
    protocol: Protocol,
) -> list[str]:
    """Fitted methods that are no better than the best member; the mean speaks for the fallen."""
    labels, figure = np.asarray(oof.labels), protocol.figure(oof.class_names)
    learnt = [
        n for n, one in everyone.items() if n not in REFERENCE_METHODS and one.is_fitted_to_labels
    ]
    best = crossed["best-member"]
    return [n for n in learnt if n not in fallen and not beats(crossed[n], best, labels, figure)]


def _strict(
    everyone: Mapping[str, Combiner],
    nested: Sequence[NestedFold],
    oof: Predictions,
    protocol: Protocol,
) -> dict[str, MethodPredictions]:
    return nested_answers(
        everyone,
        nested,
        oof,
        may_fall=may_fall(everyone, protocol),
        metric=protocol.figure(oof.class_names),
        decide=lambda combined: protocol.decided(combined, oof.class_names),
    )


def _decided(
    combiner: Combiner, combined: MethodPredictions, table: Predictions, protocol: Protocol
) -> MethodPredictions:
    """As the protocol decides; the oracle has seen the labels."""
    return combined if combiner.needs_labels else protocol.decided(combined, table.class_names)


def _judge(
    tables: Mapping[str, Combined], table: Predictions, protocol: Protocol
) -> dict[str, Scored]:
    if not tables:
        return {}
    abstained = any(one.n_abstained for one in tables.values())
    return judge(
        tables,
        np.asarray(table.labels),
        table.groups,
        table.n_classes,
        metrics=protocol.figures(table, abstained=abstained),
        level=protocol.level,
        intervals=protocol.intervals,
    )


def _per_class(
    everyone: Mapping[str, Combiner],
    answers: Mapping[str, Combined],
    table: Predictions,
    protocol: Protocol,
) -> dict[str, tuple[ClassFigures, ...]]:
    made = {name: one for name, one in answers.items() if not everyone[name].needs_labels}
    return figures_per_class(made, table, protocol)


def _verdicts(
    judged: Mapping[str, Mapping[str, Scored]],
    fallen: Collection[str],
    oof: Predictions,
    protocol: Protocol,
    best: str | None,
    correction: CorrectedChoice | None,
) -> dict[str, tuple[Verdict, ...]]:
    """Every method against the baselines, on the parts that it was not fitted to.

    The best method was chosen cross-fitted: on the test part its verdict stands for itself, and
    cross-fitted it rests on the gain that is corrected for the choice.
    """
    found: dict[str, list[Verdict]] = {}
    for part in [p for p in ("cross_fitted", "nested", "test") if p in judged]:
        methods = {name: one for name, one in judged[part].items() if name not in REFERENCE_METHODS}
        alone = {best: methods[best]} if part == "test" and best is not None else {}
        for against in BASELINES:
            said: dict[str, Verdict] = {}
            for some in (methods, alone):
                said |= verdicts(
                    some,
                    against,
                    judged[part][against],
                    metric_name=protocol.figure(oof.class_names),
                    part=part,
                    group_kind=oof.group_kind,
                    level=protocol.level,
                    # Nested, each fold decides anew whether to fall back.
                    shown={name: replaced_name(name) for name in fallen if part != "nested"},
                    n_compared=len(methods),
                )
            if part == "cross_fitted" and best is not None and correction is not None:
                said[best] = corrected_verdict(said[best], correction.gains.get(against))
            for name, one in said.items():
                found.setdefault(name, []).append(one)
    return {name: tuple(some) for name, some in found.items()}


def _tests(
    part: str, answers: Mapping[str, Combined], table: Predictions
) -> dict[str, tuple[BaselineTest, ...]]:
    """Image-level tests, where no image shares a group with another."""
    methods = {name: one for name, one in answers.items() if name != "oracle"}
    if has_larger_groups(table):
        return {name: () for name in methods if name not in BASELINES}
    return baseline_tests(methods, np.asarray(table.labels), floors=BASELINES, part=part)
