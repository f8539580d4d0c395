"""Predictions of a method: rows are taken, joined by id, and put together."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.predictions.method_predictions import (
    ABSTAINED,
    Combined,
    MethodPredictions,
    decided,
    positions,
)
from ensemble_kit.predictions.table import Predictions

PROBA = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])


@pytest.fixture
def predictions() -> MethodPredictions:
    table = Predictions.from_arrays(
        {"m": np.log(PROBA)}, [0, 1, 2, 0], sample_ids=list("wxyz"), groups=["a", "a", "b", "b"],
        class_names=["c0", "c1", "c2"], fold=[0, 0, 1, 1],
    )  # fmt: skip
    combined = Combined(PROBA, np.array([0, 1, 2, ABSTAINED]), np.zeros(4, dtype=bool))
    return MethodPredictions.of(combined, table)


def test_rows_are_taken_with_their_labels_groups_and_folds(predictions: MethodPredictions) -> None:
    some = predictions.take([2, 0])
    assert (some.ids.tolist(), some.groups.tolist()) == (["y", "w"], ["b", "a"])
    assert (some.labels.tolist(), some.fold.tolist()) == ([2, 0], [1, 0])
    np.testing.assert_array_equal(some.proba, PROBA[[2, 0]])
    assert (len(some), some.n_groups, some.n_classes) == (2, 2, 3)


def test_rows_are_joined_by_id_and_classes_by_name(predictions: MethodPredictions) -> None:
    turned = predictions.aligned(["z", "y"], ("c2", "c0", "c1"))
    np.testing.assert_array_equal(turned.proba, PROBA[[3, 2]][:, [2, 0, 1]])
    assert turned.labels.tolist() == [1, 0]
    assert turned.predicted.tolist() == [ABSTAINED, 0]
    back = turned.aligned(["y", "z"], predictions.class_names)
    np.testing.assert_array_equal(back.predicted, predictions.predicted[[2, 3]])


def test_other_classes_and_unknown_ids_are_refused(predictions: MethodPredictions) -> None:
    with pytest.raises(DataError, match="c9"):
        predictions.aligned(["w"], ("c0", "c1", "c9"))
    with pytest.raises(DataError, match="unknown"):
        positions(predictions.ids, ["w", "unknown"])


def test_parts_are_put_together_in_the_order_of_the_rows() -> None:
    whole = decided(PROBA)
    parts = [(np.array([3, 0]), whole.take([3, 0])), (np.array([1, 2]), whole.take([1, 2]))]
    again = Combined.scattered(parts, 4)
    np.testing.assert_array_equal(again.proba, whole.proba)
    np.testing.assert_array_equal(again.predicted, whole.predicted)
