"""A combiner that fell back to the mean is the mean in every part that the deployed one answers."""

from __future__ import annotations

import numpy as np

from ensemble_kit.combiners.boosting import BoostingStacker
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.predictions.table import Predictions


def test_a_fallen_combiners_in_sample_figures_are_those_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    logits = {m: rng.normal(size=(60, 2)) + 0.8 * np.eye(2)[labels] for m in "abcd"}
    oof = Predictions.from_arrays(
        logits, labels, groups=[f"g{i // 4}" for i in range(60)], fold=np.arange(60) // 20
    )
    judged = evaluate_all({"boosting": BoostingStacker()}, oof, protocol=Protocol(n_resamples=0))
    fell = judged["boosting"]
    assert any("the plain mean is used in its place" in note for note in fell.notes)
    assert fell.in_sample.metrics == judged["mean"].in_sample.metrics
