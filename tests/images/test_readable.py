"""Unreadable images are left out only on request, up to a bound, and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from ensemble_kit.errors import DataError, EnvironmentFault
from ensemble_kit.images import skip_unreadable as readable
from ensemble_kit.images.skip_unreadable import without_unreadable
from ensemble_kit.manifest.table import Manifest


def damaged(paint: Callable[..., Path], folder: Path, n: int) -> Manifest:
    root = paint(folder, n_patients=2, n_images=3)
    for path in sorted((root / "benign").glob("*.png"))[:n]:
        path.write_bytes(path.read_bytes()[:60])
    return Manifest.from_folders(root)


def test_whole_images_are_all_kept(paint: Callable[..., Path], tmp_path: Path) -> None:
    manifest = damaged(paint, tmp_path / "a", 0)
    assert without_unreadable(manifest, max_bad=0) is manifest


def test_row_14_unreadable_images_are_left_out_and_named(
    paint: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = damaged(paint, tmp_path / "a", 2)
    kept = without_unreadable(manifest, max_bad=2)
    assert len(kept) == len(manifest) - 2
    gone = sorted(set(manifest.sample_ids) - set(kept.sample_ids))
    assert "2 unreadable images" in kept.notes[-1]
    assert all(name in kept.notes[-1] for name in gone)


def test_more_than_the_bound_are_refused(paint: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 of 12"):
        without_unreadable(damaged(paint, tmp_path / "a", 3), max_bad=2)


def test_an_image_that_lacks_memory_is_not_left_out(
    paint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readable, "read_image", mock.Mock(side_effect=MemoryError("'x.png'")))
    with pytest.raises(EnvironmentFault, match=r"x\.png"):
        without_unreadable(damaged(paint, tmp_path / "a", 0), max_bad=99)


def test_a_class_is_never_left_without_images(paint: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="benign are unreadable"):
        without_unreadable(damaged(paint, tmp_path / "a", 6), max_bad=9)
