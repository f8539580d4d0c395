"""A combiner that was replaced by the mean has the metrics of the mean."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.combiners.stacking.boosting import BoostingStacker
from ensemble_kit.evaluation.cross_validation.fallback import is_better
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.metrics import metric
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions


def test_in_sample_metrics_of_a_replaced_combiner_are_those_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    logits = {m: rng.normal(size=(60, 2)) + 0.8 * np.eye(2)[labels] for m in "abcd"}
    oof = Predictions.from_arrays(
        logits, labels, groups=[f"g{i // 4}" for i in range(60)], fold=np.arange(60) // 20
    )
    evaluated = evaluate_all({"boosting": BoostingStacker()}, oof, protocol=Protocol(n_resamples=0))
    replaced = evaluated["boosting"]
    assert any("replaced by the mean" in note for note in replaced.notes)
    assert replaced.in_sample.metrics == evaluated["mean"].in_sample.metrics


@pytest.mark.parametrize("name", ["auroc", "average_precision", "aurc", "accuracy"])
def test_a_combiner_with_the_better_metric_is_not_replaced(
    name: str,
) -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    sure = np.array([0.91, 0.92, 0.93, 0.94, 0.95, 0.96])  # in the right order, and overconfident
    ranks = decided(np.stack([1 - sure, sure], axis=1))
    if name in ("accuracy", "aurc"):
        ranks = Combined(ranks.proba, labels, ranks.tied)
    coin = decided(np.full((6, 2), 0.5))
    assert is_better(ranks, coin, labels, metric(name))
    assert not is_better(coin, coin, labels, metric(name))


def test_abstentions_do_not_prevent_the_replacement() -> None:
    labels, tied = np.array([0, 0, 1, 1]), np.zeros(4, dtype=bool)
    proba = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.4, 0.6]])
    deciding = decided(proba)
    abstaining = Combined(proba, np.array([0, -1, 1, 1]), tied)  # right if it does not abstain
    assert not is_better(abstaining, deciding, labels, metric("accuracy"))
