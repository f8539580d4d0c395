"""MedMNIST files keep their own parts, and run no code."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.images.decode import read_image
from ensemble_kit.manifest.npz import read_npz


def save(path: Path, **changes: np.ndarray) -> Path:
    images = np.arange(4 * 10 * 10, dtype=np.uint8).reshape(4, 10, 10)
    arrays = {
        "train_images": images,
        "train_labels": np.array([[0], [1], [0], [1]]),
        "test_images": images[:2] + 7,
        "test_labels": np.array([[1], [0]]),
    }
    np.savez(path, **(arrays | changes))
    return path


def test_parts_labels_and_pixels_are_the_files_own(tmp_path: Path) -> None:
    manifest = read_npz(save(tmp_path / "x.npz"))
    assert manifest.table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert manifest.labels.tolist() == [0, 1, 0, 1, 1, 0]
    pixels = read_image(manifest.root, manifest.table["path"][5])
    assert pixels[0, 0].tolist() == [107, 107, 107]


def test_breastmnist_is_malignant_first_and_its_official_split(real_data: Path) -> None:
    manifest = read_npz(real_data / "medmnist/breastmnist.npz")
    assert manifest.class_names == ("malignant", "normal or benign")
    assert manifest.table["part"].value_counts().to_dict() == {"train": 546, "test": 156, "val": 78}
    assert manifest.part("test").table["label"].value_counts().tolist() == [114, 42]


def test_row_50_a_pickle_inside_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (marker,))

    labels = np.empty(1, dtype=object)
    labels[0] = Bomb()
    with pytest.raises(DataError, match="allow_pickle"):
        read_npz(save(tmp_path / "x.npz", train_labels=labels))
    (tmp_path / "y.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError):
        read_npz(tmp_path / "y.npz")
    assert not marker.exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz")
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz"):
        read_image(tmp_path, "x.npz#train_images/0")


def test_multi_label_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Multi-label"):
        read_npz(save(tmp_path / "x.npz", train_labels=np.zeros((4, 14), int)))
    np.savez(tmp_path / "z.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match=r"weights\.npy"):
        read_npz(tmp_path / "z.npz")
    with pytest.raises(UsageError, match="1 names for 2 labels"):
        read_npz(save(tmp_path / "x.npz"), class_names=["a"])
