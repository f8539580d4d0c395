"""Unreadable images can be skipped, up to a limit, with a caveat that names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from ensemble_kit.errors import DataError, EnvironmentFault
from ensemble_kit.images import skip_unreadable as skip_module
from ensemble_kit.images.skip_unreadable import without_unreadable
from ensemble_kit.manifest.table import Manifest


def damaged(paint: Callable[..., Path], folder: Path, n: int) -> Manifest:
    root = paint(folder, n_patients=2, n_images=3)
    for path in sorted((root / "benign").glob("*.png"))[:n]:
        path.write_bytes(path.read_bytes()[:60])
    return Manifest.from_folders(root)


def test_a_manifest_of_readable_images_is_not_changed(
    paint: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = damaged(paint, tmp_path / "a", 0)
    assert without_unreadable(manifest, max_bad=0) is manifest


def test_row_14_unreadable_images_are_skipped_and_named(
    paint: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = damaged(paint, tmp_path / "a", 2)
    readable = without_unreadable(manifest, max_bad=2)
    assert len(readable) == len(manifest) - 2
    skipped = sorted(set(manifest.sample_ids) - set(readable.sample_ids))
    assert "2 unreadable images" in readable.notes[-1]
    assert all(name in readable.notes[-1] for name in skipped)


def test_too_many_unreadable_images_are_refused(paint: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 of 12"):
        without_unreadable(damaged(paint, tmp_path / "a", 3), max_bad=2)


def test_a_lack_of_memory_does_not_skip_the_image(
    paint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skip_module, "read_image", mock.Mock(side_effect=MemoryError("'x.png'")))
    with pytest.raises(EnvironmentFault, match=r"x\.png"):
        without_unreadable(damaged(paint, tmp_path / "a", 0), max_bad=99)


def test_a_class_without_readable_images_is_refused(
    paint: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="class benign"):
        without_unreadable(damaged(paint, tmp_path / "a", 6), max_bad=9)
