"""One prediction per patient: pooling rules, and decisions by cost."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble_kit.cli import app
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.evaluate import evaluate
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.scores.per_group import pooled
from ensemble_kit.metrics.costs import CostMatrix
from ensemble_kit.predictions.method_predictions import decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_run


def foci(n_groups: int = 60, per_group: int = 40, share: float = 0.1, seed: int = 0) -> Predictions:
    """A tenth of the images of a malignant patient look malignant; all others look benign."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    labels = np.arange(n_groups) % 2
    seen = (rng.random(len(groups)) < share) & (labels[groups] == 1)
    logit = rng.normal(size=len(groups)) - 2 + 5 * seen
    logits = np.stack([np.zeros(len(groups)), logit], axis=1)
    return Predictions.from_arrays(
        {"a": logits}, labels[groups], groups=[f"p{g:03d}" for g in groups], fold=groups // 2 % 4
    )


def output(call: list[str]) -> str:
    """What the command writes to standard output."""
    found = CliRunner().invoke(app, call, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_stack_uses_the_pooling_rule_and_costs(tmp_path) -> None:
    run = toy_run(tmp_path / "toy", n_classes=2)
    costs = tmp_path / "costs.csv"
    costs.write_text("true,class0,class1\nclass0,0,1\nclass1,5,0\n")
    requested = ["stack", "--run", str(run.path), "--method", "vote", "--resamples", "50", "--json"]
    call = [*requested, "--set", "pool=max", "--costs", str(costs), "--set", "decide_by_cost=true"]
    plain = json.loads(output(requested))
    by_cost = json.loads(output(call))
    one, before = by_cost["methods"]["mean"], plain["methods"]["mean"]
    assert one["costs"]["class1"]["class0"] == 5
    assert one["test"]["expected_cost"]["value"] is not None
    assert one["test"]["log_loss"]["value"] == before["test"]["log_loss"]["value"]
    assert any("least expected cost" in note for note in by_cost["notes"])


@pytest.mark.parametrize("rule", ["fitted", "meen"])
def test_unknown_rules_are_refused(rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        Protocol(pool=rule)


def test_patients_are_decided_by_cost_where_images_are() -> None:
    table = foci(40)
    costs = CostMatrix(("0", "1"), ((0, 1), (20, 0)))
    matrix = np.array(costs.rows)
    proba = MeanProba().fit(table.logits, table.labels).predict_proba(table.logits)
    pooled_mean, truth, _ = pooled(decided(proba), np.asarray(table.labels), table.groups)
    mean = pooled_mean.proba
    for by_cost in (False, True):
        requested = Protocol(n_resamples=50, costs=costs, decide_by_cost=by_cost)
        found = evaluate(MeanProba(), table, protocol=requested).per_group["cross_fitted"].values
        want = (mean @ matrix).argmin(axis=1) if by_cost else mean.argmax(axis=1)
        assert found["accuracy"].value == pytest.approx((want == truth).mean())
        assert found["expected_cost"].value == pytest.approx(matrix[truth, want].mean())
