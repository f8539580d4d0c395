"""MedMNIST files: their parts, and damaged or malicious files."""

from __future__ import annotations

import contextlib
import io
import pickle
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.images import containers
from ensemble_kit.images.decode import read_image
from ensemble_kit.manifest.layouts.npz import read_npz


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


def test_parts_labels_and_pixels_are_read_from_the_file(tmp_path: Path) -> None:
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


def test_row_50_a_pickle_in_the_file_is_not_run(tmp_path: Path) -> None:
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
    with pytest.raises(DataError):
        read_npz(save(tmp_path / "x.npz", train_labels=np.zeros((4, 14), int)))
    np.savez(tmp_path / "z.npz", weights=np.zeros(3))
    with pytest.raises(DataError, match=r"weights\.npy"):
        read_npz(tmp_path / "z.npz")
    with pytest.raises(UsageError, match=r"\b1\b.*\b2\b"):
        read_npz(save(tmp_path / "x.npz"), class_names=["a"])


def test_different_numbers_of_labels_and_images_are_refused(tmp_path: Path) -> None:
    images = np.zeros((5, 10, 10), np.uint8)
    with pytest.raises(DataError, match="5 images"):
        read_npz(save(tmp_path / "x.npz", train_images=images))
    for odd in (10**12, -1):
        with pytest.raises(DataError, match=str(odd)):
            read_npz(save(tmp_path / "x.npz", train_labels=np.array([[0], [1], [odd], [1]])))
    with pytest.raises(DataError, match="train_labels"):
        read_npz(save(tmp_path / "x.npz", train_labels=np.array(3)))


def member(
    path: Path, name: str, content: bytes, *, compression: int = zipfile.ZIP_DEFLATED
) -> None:
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr(f"{name}.npy", content)


def header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)  # type: ignore[no-untyped-call]
    return file.getvalue()


@pytest.mark.parametrize("shape", [(2**45, 1024, 1024), (4, 10, 11), (3, 10, 10), (-4, 10, 10)])
def test_row_52_a_header_with_wrong_sizes_is_refused_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    member(tmp_path / "x.npz", "train_images", header(shape) + bytes(400))
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(DataError, match=r"x\.npz"):
        read_image(tmp_path, "x.npz#train_images/0")


def test_row_52_other_compression_methods_are_refused(tmp_path: Path) -> None:
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / f"{kind}.npz"
        member(path, "train_images", header((4, 10, 10)) + bytes(400), compression=kind)
        with pytest.raises(DataError):
            read_image(tmp_path, f"{path.name}#train_images/0")


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_row_50_damaged_bytes_give_pixels_or_a_data_error(
    tmp_path: Path, write: Callable[..., None]
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 10, 10), dtype=np.uint8)
    write(tmp_path / "x.npz", train_images=images, train_labels=np.array([[0], [1], [0], [1]]))
    content = (tmp_path / "x.npz").read_bytes()
    for i in range(150):
        broken = bytearray(content)
        for at in rng.integers(0, len(broken), 2):
            broken[at] ^= int(rng.integers(1, 256))
        path = tmp_path / f"{i}.npz"
        path.write_bytes(broken)
        # Any other exception fails the test.
        with contextlib.suppress(DataError):
            read_npz(path)
            read_image(tmp_path, f"{path.name}#train_images/0")


def test_an_array_is_read_once_for_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "x.npz")
    real, reads, together = containers.load_npz, list[str](), threading.Barrier(4)

    def load(file: str, key: str) -> np.ndarray:
        reads.append(key)
        time.sleep(0.05)  # so that the other threads arrive
        return real(file, key)

    def read(_: int) -> np.ndarray:
        together.wait()
        return read_image(tmp_path, "x.npz#train_images/1")

    monkeypatch.setattr(containers, "load_npz", load)
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(read, range(4)))
    assert reads == ["train_images"]
    assert all((image == images[0]).all() for image in images)
