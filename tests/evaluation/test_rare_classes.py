"""A resample without a class says nothing of a mean over classes."""

from __future__ import annotations

import numpy as np

from ensemble_kit.combiners.base import decided
from ensemble_kit.evaluation.figures import judge


def test_the_interval_of_balanced_accuracy_does_not_rise_where_a_hard_class_is_left_out() -> None:
    # Class 0 is one patient, always missed: every figure over all three classes is at most 2/3.
    labels = np.repeat([0, 1, 1, 1, 2, 2, 2], 4)
    groups = np.repeat(np.arange(7), 4)
    proba = np.full((28, 3), 0.1)
    proba[np.arange(28), np.where(labels == 0, 1, labels)] = 0.8
    figures = judge(
        {"cnn": decided(proba)}, labels, groups, 3, metrics=["balanced_accuracy", "accuracy"]
    )
    found = figures["cnn"].figures.metrics["balanced_accuracy"]
    assert found.value == 2 / 3
    assert found.high is not None
    assert found.high <= 2 / 3 + 1e-12
