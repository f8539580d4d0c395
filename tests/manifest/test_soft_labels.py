"""Soft labels: columns of a manifest and part of its digest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.manifest.soft_labels import soft_columns
from ensemble_kit.manifest.table import Manifest

NAMES = ("a", "b")
PROBA = np.array([[0.25, 0.75], [1 / 3, 2 / 3], [np.nan, np.nan]])


@pytest.fixture
def manifest() -> Manifest:
    rows = [("1", "1.png", "a", "p"), ("2", "2.png", "b", "q"), ("3", "3.png", "b", "r")]
    return Manifest.from_records(rows)


def test_soft_labels_are_read_from_the_file_and_change_the_digest(
    manifest: Manifest, tmp_path: Path
) -> None:
    soft = manifest.with_columns(**soft_columns(PROBA, NAMES))
    assert manifest.soft_labels is None
    assert soft.digest != manifest.digest
    soft.write(tmp_path / "m.csv")
    again = Manifest.read(tmp_path / "m.csv", class_names=NAMES)
    assert again.digest == soft.digest
    np.testing.assert_allclose(again.take([0, 1]).soft_labels, PROBA[:2], atol=1e-8)
    np.testing.assert_array_equal(again.take([1, 0]).soft_labels, again.take([0, 1]).soft_labels[::-1])  # fmt: skip


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"soft_label:a": ["0.25", "x", ""]}, "'2'"),
        ({"soft_label:a": ["0.5", "0.3", ""]}, "'1'"),
        ({"soft_label:a": ["-0.1", "0.3", ""], "soft_label:b": ["1.1", "0.7", ""]}, "'1'"),
        ({}, "'3'"),
        ({"soft_label:c": ["0", "0", "0"]}, "soft_label:c"),
    ],
)
def test_soft_labels_that_are_not_a_distribution_are_refused(
    manifest: Manifest, change: dict[str, list[str]], named: str
) -> None:
    soft = manifest.with_columns(**{**soft_columns(PROBA, NAMES), **change})
    with pytest.raises(DataError, match=named):
        _ = soft.soft_labels
