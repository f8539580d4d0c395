"""A mean over classes is not defined without one of them."""

from __future__ import annotations

import numpy as np

from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.predictions.method_predictions import decided


def test_balanced_accuracy_has_no_interval_where_a_class_is_one_patient() -> None:
    # Class 0 is one patient, always missed.
    labels = np.repeat([0, 1, 1, 1, 2, 2, 2], 4)
    groups = np.repeat(np.arange(7), 4)
    proba = np.full((28, 3), 0.1)
    proba[np.arange(28), np.where(labels == 0, 1, labels)] = 0.8
    scored = score_methods(
        {"cnn": decided(proba)}, labels, groups, 3, metrics=["balanced_accuracy", "accuracy"]
    )
    found = scored["cnn"].values.metrics["balanced_accuracy"]
    assert found.value == 2 / 3
    assert found.low is None  # without that patient it is a mean over two classes: another metric
    assert scored["cnn"].values.metrics["accuracy"].low is not None
