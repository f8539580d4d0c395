"""The baselines of a table are chosen by the metric of the table."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.combiners import make_combiner
from ensemble_kit.combiners.baselines import BestMember
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.compare import all_notes
from ensemble_kit.evaluation.cross_validation.baselines import with_baselines
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.metrics.costs import CostMatrix
from ensemble_kit.predictions.table import Predictions

QUICK = {"n_resamples": 0}


class LastMember(BestMember):
    """Always chooses the last member."""

    def _fit(self, logits, labels, groups) -> None:
        self.member_ = logits.shape[1] - 1


def sharp_and_calibrated() -> Predictions:
    """`sharp` is right more often, `calibrated` has the lower log loss by far."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    sign = 2 * labels - 1
    sharp, calibrated = (rng.normal(size=400) + pull * sign for pull in (1.2, 0.9))
    return Predictions.from_arrays(
        {
            "sharp": np.stack([-20 * sharp, 20 * sharp], axis=1),
            "calibrated": np.stack([-calibrated, calibrated], axis=1),
        },
        labels,
        fold=np.arange(400) // 80,
    )


@pytest.mark.parametrize(
    ("metric", "best"),
    [("balanced_accuracy", "sharp"), ("log_loss", "calibrated"), ("auroc", "sharp")],
)
def test_the_best_member_is_the_best_by_the_metric_of_the_table(metric: str, best: str) -> None:
    table = sharp_and_calibrated()
    evaluated = evaluate_all(
        {"vote": make_combiner("vote")}, table, protocol=Protocol(metric=metric, **QUICK)
    )
    assert table.member_names[evaluated["best-member"].combiner.member_] == best


def test_the_best_member_by_cost_has_the_lowest_cost() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    predicted = {"false alarms": np.r_[[1] * 4, [0] * 6, [1] * 10], "misses": np.r_[[0] * 19, [1]]}
    predicted["misses"][10:17] = 1  # 2 errors, both on class 1
    table = Predictions.from_arrays(
        {name: 4.0 * np.eye(2)[one] for name, one in predicted.items()},
        labels,
        class_names=["healthy", "cancer"],
        fold=np.arange(20) % 2,
    )
    costs = CostMatrix(("healthy", "cancer"), ((0.0, 1.0), (10.0, 0.0)))

    def chosen(**how: object) -> str:
        protocol = Protocol(n_resamples=0, **how)  # type: ignore[arg-type]
        evaluated = evaluate_all({"vote": make_combiner("vote")}, table, protocol=protocol)
        return table.member_names[evaluated["best-member"].combiner.member_]

    assert chosen() == "misses"
    assert chosen(metric="expected_cost", costs=costs) == "false alarms"


def test_the_own_metric_of_a_best_member_is_not_changed() -> None:
    own = {"best-member": BestMember("brier"), "other": BestMember()}
    made = with_baselines(own, Protocol(metric="auroc"), ["a", "b"])
    assert [made[name].metric for name in ("best-member", "other")] == ["brier", "auroc"]
    assert list(made) == ["best-member", "mean", "other", "oracle"]


def test_a_metric_with_an_ideal_value_cannot_choose_a_member() -> None:
    table = sharp_and_calibrated()
    with pytest.raises(UsageError, match="calibration_slope"):
        BestMember("calibration_slope").fit(table.logits, table.labels)


def test_fitted_methods_below_the_best_member_are_named() -> None:
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.arange(200) % 2)
    sign = (2 * labels - 1)[:, None] * np.array([-1.0, 1.0])
    members = {"good": 1.5 * sign + rng.normal(size=(200, 2))}
    members |= {f"noise{i}": 2 * rng.normal(size=(200, 2)) for i in range(3)}
    table = Predictions.from_arrays(members, labels, fold=np.arange(200) % 4)
    protocol = Protocol(fallback=False, **QUICK)
    evaluated = evaluate_all(
        {"last": LastMember(), "vote": make_combiner("vote")}, table, protocol=protocol
    )
    printed = [note for note in all_notes(evaluated) if "not better than the best member" in note]
    assert [note.partition(": ")[0] for note in printed] == ["last"]
    assert not any(note in evaluated["vote"].notes for note in printed)
    fine = evaluate_all({"simplex": make_combiner("simplex")}, table, protocol=protocol)
    assert not any("not better than the best member" in note for note in fine["simplex"].notes)
