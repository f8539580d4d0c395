"""Inflation is a paired difference on the same samples, resampled over whole groups."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.inflation import inflation
from ensemble_kit.predictions.table import Predictions

N_GROUPS, PER_GROUP = 30, 8


def table(wrong: np.ndarray, split_by: str, order: np.ndarray | None = None) -> Predictions:
    """Two members that both answer wrongly where `wrong`; group g has class g % 2."""
    n = N_GROUPS * PER_GROUP
    order = np.arange(n) if order is None else order
    groups = np.repeat(np.arange(N_GROUPS), PER_GROUP)
    labels = groups % 2
    said = np.where(wrong, 1 - labels, labels)
    logits = np.repeat(np.eye(2, dtype=np.float32)[said][:, None] * 3, 2, axis=1)
    return Predictions(
        logits=logits[order],
        sample_ids=np.array([f"s{i:03d}" for i in range(n)])[order],
        labels=labels[order],
        groups=np.array([f"p{g}" for g in groups])[order],
        member_names=("a", "b"),
        class_names=("x", "y"),
        fold=np.arange(n)[order] % 3 if split_by == "image" else groups[order] // 2 % 3,
        split_by=split_by,
        group_kind="patient",
    )


def first_groups_wrong(n_groups: int) -> np.ndarray:
    return np.arange(N_GROUPS * PER_GROUP) < n_groups * PER_GROUP


def test_points_are_the_difference_by_hand() -> None:
    by_image, by_group = (
        table(first_groups_wrong(0), "image"),
        table(first_groups_wrong(6), "group"),
    )
    found = inflation(by_image, by_group)
    assert found.by_image.value == 1.0
    assert found.by_group.value == pytest.approx(0.8)
    assert found.points.value == pytest.approx(20.0)
    assert found.points.low is not None
    assert 2 < found.points.low < 20 < found.points.high < 45  # type: ignore[operator]
    assert (found.n, found.n_groups) == (240, 30)
    assert "inflated by 20.0 [" in str(found)


def test_equal_tables_are_not_inflated_and_the_pairing_shows_it() -> None:
    wrong = first_groups_wrong(8)
    found = inflation(table(wrong, "image"), table(wrong, "group"))
    assert (found.points.value, found.points.low, found.points.high) == (0.0, 0.0, 0.0)


def test_samples_are_joined_by_id_never_by_position() -> None:
    order = np.random.default_rng(0).permutation(N_GROUPS * PER_GROUP)
    wrong = first_groups_wrong(6)
    shuffled = inflation(table(first_groups_wrong(0), "image", order), table(wrong, "group"))
    assert shuffled == inflation(table(first_groups_wrong(0), "image"), table(wrong, "group"))


def test_only_common_samples_count() -> None:
    half = table(first_groups_wrong(0), "image", np.arange(100, 240))
    assert inflation(half, table(first_groups_wrong(6), "group")).n == 140


def test_tables_that_do_not_belong_together_are_refused() -> None:
    by_image, by_group = (
        table(first_groups_wrong(0), "image"),
        table(first_groups_wrong(1), "group"),
    )
    with pytest.raises(DataError, match="split by group and by image"):
        inflation(by_group, by_image)
    with pytest.raises(DataError, match="same member_names"):
        inflation(by_image, dataclasses.replace(by_group, member_names=("a", "c")))
    with pytest.raises(DataError, match="one of balanced_accuracy"):
        inflation(by_image, by_group, metric="kappa")
