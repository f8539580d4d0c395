"""A metric against cost: fronts, budgets, and the cheapest set that is not inferior."""

from __future__ import annotations

import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.diversity.pareto import cheapest_sentence, pareto_table
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.testing import toy_predictions

COSTS = {"member0": 1.0, "member1": 2.0, "member2": 4.0, "member3": 8.0}
QUICK = Protocol(n_resamples=200)


def test_the_front_rises_with_cost_and_nothing_cheaper_is_better() -> None:
    table = pareto_table(toy_predictions(), COSTS, protocol=QUICK)
    front = table[table["on_front"]]
    assert front["cost"].is_monotonic_increasing
    assert front["value"].is_monotonic_increasing
    for _, off in table[~table["on_front"]].iterrows():
        assert ((front["cost"] <= off["cost"]) & (front["value"] >= off["value"])).any()


def test_the_choice_is_the_cheapest_set_that_is_not_inferior_by_more_than_the_margin() -> None:
    choices = []
    for margin in (0.0, 0.1, 1.0):
        table = pareto_table(
            toy_predictions(600, n_groups=60), COSTS, margin=margin, protocol=QUICK
        )
        chosen = table[table["members"] == table.attrs["choice"]].iloc[0]
        assert chosen["at_worst"] >= -margin
        assert (table[table["cost"] < chosen["cost"]]["at_worst"] < -margin).all()
        choices.append(chosen["cost"])
    assert choices == sorted(choices, reverse=True)
    assert choices[-1] == table["cost"].min()  # nothing is inferior by more than 1


def test_the_sentence_has_the_possible_loss_of_the_choice() -> None:
    table = pareto_table(toy_predictions(), COSTS, margin=0.5, protocol=QUICK)
    chosen = table[table["members"] == table.attrs["choice"]].iloc[0]
    assert chosen["at_worst"] < 0
    assert f"{-chosen['at_worst']:.3f}" in cheapest_sentence(table)
    assert "0.5" in cheapest_sentence(table)


def test_budget_and_number_of_members_are_respected() -> None:
    table = pareto_table(toy_predictions(), COSTS, budget=6.0, max_members=2, protocol=QUICK)
    assert table["cost"].max() <= 6.0
    assert table["n_members"].max() <= 2
    with pytest.raises(UsageError, match=r"0\.5 .*1\.0"):
        pareto_table(toy_predictions(), COSTS, budget=0.5)
    with pytest.raises(DataError, match="member3"):
        pareto_table(toy_predictions(), {k: v for k, v in COSTS.items() if k != "member3"})


def test_without_intervals_there_is_no_cheapest_set() -> None:
    table = pareto_table(toy_predictions(), COSTS, protocol=Protocol(n_resamples=0))
    assert table.attrs["choice"] is None
    assert "No cheapest set" in cheapest_sentence(table)


def test_a_loss_is_better_when_lower() -> None:
    table = pareto_table(
        toy_predictions(), COSTS, protocol=Protocol(metric="log_loss", n_resamples=100)
    )
    assert table[table["on_front"]]["value"].is_monotonic_decreasing
    assert table["value"].idxmin() in table.index[table["on_front"]]
