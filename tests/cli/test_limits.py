"""Limits on greedy selection, and the Pareto table, on the command line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble_kit.cli import app
from ensemble_kit.combiners.weights.greedy_selection import GreedySelection
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.testing import toy_logits, toy_run

COSTS = (1.0, 2.0, 4.0, 8.0)


@pytest.fixture
def run(tmp_path):
    made = toy_run(tmp_path / "toy")
    for name, cost in zip(made.store.members(), COSTS, strict=True):
        folder = made.member_dir(name)
        folder.mkdir(parents=True, exist_ok=True)
        spec = {"parameters": 1e6 * cost, "gmacs": cost}
        (folder / "member.json").write_text(json.dumps(spec))
    return made


def call(run, *args: str):
    argv = ["stack", "--run", str(run.path), "--resamples", "50", *args]
    return CliRunner().invoke(app, argv, catch_exceptions=False)


def n_selected(run) -> int:
    from ensemble_kit.combiners.saved import load_combiner

    return int((load_combiner(run.ensemble_dir("greedy")).weights_ > 0).sum())


@pytest.mark.parametrize("n_bags", [0, 5])
@pytest.mark.parametrize("budget", [1.0, 3.0, 7.5, 15.0])
def test_selected_members_cost_at_most_the_budget(budget: float, n_bags: int) -> None:
    labels = np.arange(200) % 3
    logits = toy_logits(labels, 4, 3)
    combiner = GreedySelection(n_bags=n_bags, costs=COSTS, budget=budget).fit(logits, labels)
    used = combiner.weights_ > 0
    assert np.array(COSTS)[used].sum() <= budget
    assert combiner.weights_.sum() == pytest.approx(1.0)


def test_a_budget_above_the_total_cost_has_no_effect() -> None:
    labels = np.arange(200) % 3
    logits = toy_logits(labels, 4, 3)
    free = GreedySelection().fit(logits, labels).weights_
    np.testing.assert_array_equal(
        GreedySelection(costs=COSTS, budget=99.0).fit(logits, labels).weights_, free
    )


def test_a_budget_below_the_cheapest_member_is_refused() -> None:
    labels = np.arange(20) % 2
    with pytest.raises(UsageError, match=r"0\.5"):
        GreedySelection(costs=COSTS, budget=0.5).fit(toy_logits(labels, 4, 2), labels)


def test_the_limits_of_greedy_selection_are_respected(run) -> None:
    printed = call(run, "--method", "greedy", "--set", "max_members=1").output
    assert "greedy (replaced" not in printed
    assert n_selected(run) == 1
    call(run, "--method", "greedy", "--set", "budget_params=3e6")
    assert n_selected(run) <= 2
    assert (run.path / "ensembles/pareto.csv").is_file()


def test_the_pareto_table_respects_the_limits(run) -> None:
    values = json.loads(
        call(run, "--method", "greedy", "--set", "budget_params=3e6", "--json").output
    )
    assert {row["cost"] for row in values["pareto"]} == {1e6, 2e6, 3e6}
    few = ("--method", "greedy", "--set", "max_members=2", "--pareto", "--json")
    assert max(row["n_members"] for row in json.loads(call(run, *few).output)["pareto"]) == 2
    printed = call(run, "--method", "vote", "--pareto", "--resamples", "0").output
    assert "Cheapest set" not in printed


def test_the_pareto_table_allows_a_quorum(run) -> None:
    one = run.store.read("member2")
    oof = one.oof.copy()
    oof[run.folds().of(run.manifest().part("train")) == 1] = np.nan
    test = {k: z for k, z in one.test.items() if k != 1}
    about = one.about | {"folds_done": [0, 2, 3]}
    run.store.write("member2", dataclasses.replace(one, oof=oof, test=test, about=about))
    args = (
        "--method",
        "greedy",
        "--quorum",
        "3",
        "--set",
        "budget_params=15e6",
        "--permutation-test",
        "2",
    )
    values = json.loads(call(run, *args, "--json").output)
    assert "member2" not in [row["members"] for row in values["pareto"]]
    assert any("member2" in row["members"] for row in values["pareto"])
    assert any("Quorum of 3" in note for note in values["notes"])


def test_the_pareto_table_uses_gmacs_and_is_in_the_json(run) -> None:
    values = json.loads(call(run, "--method", "vote", "--pareto", "--json").output)
    assert min(row["cost"] for row in values["pareto"]) == 1.0
    assert {row["unit"] for row in values["pareto"]} == {"GMACs per image"}
    assert {row["metric"] for row in values["pareto"]} == {"balanced_accuracy"}
    assert json.loads(call(run, "--method", "vote", "--json").output)["pareto"] is None


def test_limits_without_selection_or_costs_are_refused_with_advice(run) -> None:
    with pytest.raises(UsageError, match="Add --method greedy"):
        call(run, "--method", "vote", "--set", "max_members=2")
    with pytest.raises(DataError, match="member0"):
        call(run, "--method", "greedy", "--set", "budget_ms=2")
    with pytest.raises(UsageError, match="budget_ms"):
        call(run, "--method", "greedy", "--set", "budget_ms=2", "--set", "budget_params=2")


def test_a_missing_cost_leaves_out_only_the_pareto_table(run) -> None:
    (run.member_dir("member2") / "member.json").write_text('{"parameters": 3}')
    requested = call(run, "--method", "vote", "--pareto")
    assert requested.exit_code == 0
    assert "member2" in requested.stderr
    assert "Method: vote" in requested.stdout
    assert not (run.path / "ensembles/pareto.csv").exists()
    assert json.loads(call(run, "--method", "vote", "--pareto", "--json").stdout)["pareto"] is None
    assert call(run, "--method", "greedy", "--set", "max_members=2", "--pareto").exit_code == 0
