"""Inferred groups keep copies together and have a caveat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.audit.groups import infer_groups
from ensemble_kit.errors import DataError
from ensemble_kit.folds import make_folds
from ensemble_kit.manifest.layouts.class_folders import read_folders
from ensemble_kit.manifest.layouts.npz import read_npz


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).resize((80, 80))
        image.save(folder / f"{i:02d}.png")
        if i < 3:
            image.transpose(Image.Transpose.ROTATE_90).save(
                folder / f"{i:02d}-turned.jpg", quality=80
            )
    return tmp_path


def test_copies_are_in_one_group_and_one_fold(root: Path) -> None:
    manifest = infer_groups(read_folders(root))
    assert (len(manifest), manifest.n_groups, manifest.group_kind) == (15, 12, "inferred group")
    group = dict(zip(manifest.table["path"], manifest.groups, strict=True))
    assert group["a/00.png"] == group["a/00-turned.jpg"]
    assert "inferred" in manifest.notes[-1]
    assert not any("its own group" in note for note in manifest.notes)
    make_folds(manifest, 3).of(manifest)


def test_known_groups_are_refused(root: Path) -> None:
    with pytest.raises(DataError):
        infer_groups(read_folders(root, group_pattern=r"(\d+)"))


def test_copies_on_both_sides_of_an_official_split_make_it_a_split_by_image(
    real_data: Path,
) -> None:
    manifest = infer_groups(read_npz(real_data / "medmnist/breastmnist.npz"))
    assert manifest.n_groups < 700
    assert manifest.split_by == "image"
