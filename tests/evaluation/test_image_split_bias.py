"""The bias of an image-level split: paired by image, with groups resampled."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.runs.image_split_bias import image_split_bias
from ensemble_kit.predictions.table import Predictions


def table(
    hits: np.ndarray, labels: np.ndarray, by: str, order: np.ndarray | None = None
) -> Predictions:
    """One member that is right where `hits` says so; groups of four images."""
    n = len(labels)
    order = np.arange(n) if order is None else order
    predicted = np.where(hits, labels, 1 - labels)
    logits = 3.0 * np.eye(2)[predicted]
    ids, groups = np.array([f"i{i}" for i in range(n)]), np.array([f"g{i // 4}" for i in range(n)])
    return Predictions.from_arrays(
        {"cnn": logits[order]},
        labels[order],
        sample_ids=ids[order],
        groups=groups[order],
        split_by=by,
    )


def test_points_are_the_difference_over_the_common_images_in_any_order() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(80) // 4 % 2
    image, group = rng.random(80) < 0.9, rng.random(80) < 0.6
    shuffled = rng.permutation(80)[:60]
    out = image_split_bias(
        table(image, labels, "image"), table(group, labels, "group", shuffled)
    ).set_index("member")
    recall = lambda hits: np.mean([hits[shuffled][labels[shuffled] == c].mean() for c in (0, 1)])  # noqa: E731
    want = 100 * (recall(image) - recall(group))
    assert out.loc["cnn", "points"] == pytest.approx(want)
    assert out.loc["cnn", "low"] < want < out.loc["cnn", "high"]
    assert out.loc["cnn", "n"] == 60


def test_equal_predictions_show_no_bias() -> None:
    labels = np.arange(80) // 4 % 2
    hits = np.random.default_rng(1).random(80) < 0.7
    out = image_split_bias(table(hits, labels, "image"), table(hits, labels, "group"))
    assert out["points"].tolist() == [0.0]
    assert out[["low", "high"]].isna().all(axis=None)  # the variance is zero


def test_two_tables_of_one_protocol_are_refused() -> None:
    labels = np.arange(8) // 4 % 2
    same = table(labels == labels, labels, "group")
    with pytest.raises(DataError, match="by group and by group"):
        image_split_bias(same, same)
