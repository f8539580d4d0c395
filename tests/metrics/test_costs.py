"""Costs of errors: files joined by class name, expected cost, and decisions of least cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.combiners import make_combiner
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.ensemble_files import metrics_json
from ensemble_kit.metrics import METRICS, cost_metric
from ensemble_kit.metrics.costs import CostMatrix, least_cost, read_costs
from ensemble_kit.metrics.sufficient_statistics import sums_of
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.testing import toy_predictions

COSTS = CostMatrix(("0", "1+", "2+"), ((0, 1, 4), (1, 0, 1), (9, 3, 0)))


def written(tmp_path: Path, text: str, name: str = "costs.csv") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_expected_cost_is_that_of_a_table_worked_by_hand() -> None:
    # True 0: one right, one predicted as 2+ (4). True 1+: one predicted as 0 (1). True 2+: one
    # predicted as 0 (9), one right. (4 + 1 + 9) / 5.
    labels, predicted = np.array([0, 0, 1, 2, 2]), np.array([0, 2, 0, 0, 2])
    proba = np.eye(3)[predicted]
    metric = cost_metric(COSTS.of(("0", "1+", "2+")))
    assert float(metric.of_sums(sums_of(labels, proba))) == pytest.approx(14 / 5)
    # The same table with its classes in another order.
    turned = [2, 0, 1]
    order = ("2+", "0", "1+")
    moved = sums_of(np.argsort(turned)[labels], proba[:, turned])
    assert float(cost_metric(COSTS.of(order)).of_sums(moved)) == pytest.approx(14 / 5)


def test_the_decision_of_least_cost_equals_a_slow_search() -> None:
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), 200)
    costs = rng.random((3, 3)) * 5
    slow = [min(range(3), key=lambda j: sum(p[i] * costs[i, j] for i in range(3))) for p in proba]
    assert least_cost(decided(proba), costs).predicted.tolist() == slow


def test_with_equal_costs_the_decision_is_the_most_probable_class() -> None:
    rng = np.random.default_rng(1)
    proba = np.concatenate([rng.dirichlet(np.ones(3), 100), [[0.4, 0.4, 0.2], [1 / 3] * 3]])
    plain, by_cost = decided(proba), least_cost(decided(proba), 1.0 - np.eye(3))
    np.testing.assert_array_equal(plain.predicted, by_cost.predicted)
    np.testing.assert_array_equal(plain.tied, by_cost.tied)


def test_an_abstention_is_not_changed_by_costs() -> None:
    abstaining = Combined(np.array([[0.9, 0.1]]), np.array([-1]), np.array([True]))
    assert least_cost(abstaining, np.array([[0.0, 1], [10, 0]])).predicted.tolist() == [-1]


@pytest.mark.parametrize("order", [("0", "1+", "2+"), ("2+", "0", "1+")])
def test_csv_and_toml_are_joined_by_name(tmp_path: Path, order: tuple[str, ...]) -> None:
    csv = read_costs(written(tmp_path, "true,2+,0,1+\n1+,1,1,0\n0,4,0,1\n2+,0,9,3\n"))
    toml = read_costs(
        written(
            tmp_path,
            '["2+"]\n0 = 9\n"1+" = 3\n[0]\n"1+" = 1\n"2+" = 4\n["1+"]\n0 = 1\n"2+" = 1\n',
            "c.toml",
        )
    )
    np.testing.assert_array_equal(csv.of(order), COSTS.of(order))
    np.testing.assert_array_equal(toml.of(order), COSTS.of(order))


@pytest.mark.parametrize("classes", [("false", "true"), ("0", "1"), ("no", "yes"), ("a, b", "c")])
@pytest.mark.parametrize("corner", ["true", "", "0"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_class_may_have_the_name_of_the_first_column(
    tmp_path: Path, classes: tuple[str, str], corner: str, separator: str
) -> None:
    a, b = (f'"{name}"' for name in classes)
    rows = [(corner, a, b), (a, "0", "1"), (b, "10", "0")]
    text = "\n".join(separator.join(row) for row in rows)
    found = read_costs(written(tmp_path, text))
    assert found.of(classes).tolist() == [[0, 1], [10, 0]]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("true,a,b\na,0,1\n", "unknown: 'b'"),
        ("true,a,b\na,0,1\nb,1,0\nc,1,1\n", "missing: 'c'"),
        ("true,a,b\na,0,1\na,1,0\n", "class 'a'"),
        ("true,a,b\na,0,-1\nb,1,0\n", "'-1'.*'b' for 'a'"),
        ("true,a,b\na,0,\nb,1,0\n", "''.*'b' for 'a'"),
        ("true,a,b\na,0,nan\nb,1,0\n", "'b' for 'a'"),
        ("true,a,b\na,0,inf\nb,1,0\n", "'b' for 'a'"),
        ("true,a,b\na,0,0\nb,0,0\n", "0 rows"),
    ],
)
def test_invalid_costs_are_refused_with_the_difference(
    tmp_path: Path, text: str, named: str
) -> None:
    with pytest.raises(DataError, match=named):
        read_costs(written(tmp_path, text))


def test_costs_of_other_classes_are_refused_with_the_difference() -> None:
    with pytest.raises(DataError, match=r"missing: '3\+'; unknown: '0', '1\+'"):
        COSTS.of(("2+", "3+"))


def test_no_expected_cost_without_costs() -> None:
    with pytest.raises(UsageError, match=r"--costs costs\.csv"):
        METRICS["expected_cost"].of_sums(sums_of([0, 1], np.eye(2)))
    for requested in ({"metric": "expected_cost"}, {"decide_by_cost": True}):
        with pytest.raises(UsageError, match=r"--costs costs\.csv"):
            evaluate_all(
                {"vote": make_combiner("vote")}, toy_predictions(), protocol=Protocol(**requested)
            )


def test_methods_are_evaluated_and_decided_by_cost() -> None:
    table = toy_predictions(300, 3, 3, n_groups=30, skill=0.7)
    costs = CostMatrix(("class2", "class0", "class1"), ((0, 20, 20), (1, 0, 1), (1, 1, 0)))
    requested = {"metric": "expected_cost", "costs": costs, "n_resamples": 100, "fallback": False}
    found = {
        by_cost: evaluate_all(
            {"logistic": make_combiner("logistic")}, table,
            protocol=Protocol(**requested, decide_by_cost=by_cost),
        )["logistic"]
        for by_cost in (False, True)
    }  # fmt: skip
    plain, cheap = found[False], found[True]
    matrix = costs.of(table.class_names)
    for one in (plain, cheap):
        by_hand = matrix[table.labels, one.oof_combined.predicted].mean()
        value = one.cross_fitted["expected_cost"]
        assert value.value == pytest.approx(by_hand)
        assert value.low < value.value < value.high
    assert cheap.cross_fitted["expected_cost"].value < plain.cross_fitted["expected_cost"].value
    assert (cheap.oof_combined.predicted == 2).mean() > (plain.oof_combined.predicted == 2).mean()
    np.testing.assert_array_equal(cheap.oof_combined.proba, plain.oof_combined.proba)
    assert cheap.verdicts[0].metric == "expected_cost"
    stored = metrics_json(cheap, table)
    assert stored["decision"] == "least expected cost"
    assert stored["costs"]["class2"]["class0"] == 20
    assert metrics_json(plain, table)["decision"] == "likeliest class"
