"""The contract of all readers; every public reader must be in READERS."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble_kit.manifest
from ensemble_kit.errors import DataError
from ensemble_kit.files import digest_json
from ensemble_kit.images.decode import read_image
from ensemble_kit.manifest.layouts.bci import read_bci
from ensemble_kit.manifest.layouts.breakhis import read_breakhis
from ensemble_kit.manifest.layouts.class_folders import read_folders
from ensemble_kit.manifest.layouts.csv_table import read_csv_table
from ensemble_kit.manifest.layouts.detect import read_manifest
from ensemble_kit.manifest.layouts.digits import read_digits
from ensemble_kit.manifest.layouts.npz import read_npz
from ensemble_kit.manifest.phantom.write import write_phantom
from ensemble_kit.manifest.table import Manifest


def paint(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make_breakhis(root: Path) -> Manifest:
    names = {
        "benign": ("B_A", "adenosis", "22549AB"),
        "malignant": ("M_DC", "ductal_carcinoma", "2523"),
    }
    for i, (tumour, (code, subtype, slide)) in enumerate(names.items()):
        folder = root / "BreaKHis_v1/histology_slides/breast" / tumour / "SOB" / subtype
        for k in range(2):
            name = f"SOB_{code}-14-{slide}-100-00{k}.png"
            paint(folder / f"SOB_{code}_14-{slide}" / "100X" / name, seed=10 * i + k)
    return read_breakhis(root)


def make_folders(root: Path) -> Manifest:
    for i, name in enumerate(("b/1.png", "b/10.png", "a/x y.png", "a/deep/é.png")):
        paint(root / name, seed=i)
    return read_folders(root)


def make_csv(root: Path) -> Manifest:
    for i in range(4):
        paint(root / f"{i}.png", seed=i)
    lines = ["path,label,group,split", *(f"{i}.png,{'ab'[i % 2]},p{i},train" for i in range(4))]
    (root / "t.csv").write_text("\n".join(lines))
    return read_csv_table(root / "t.csv")


def make_digits(root: Path) -> Manifest:
    return read_digits()


def make_bci(root: Path) -> Manifest:
    return read_bci(
        write_phantom(root / "phantom", n_patients=12, images_per_patient=1, image_size=32)
    )


def make_npz(root: Path) -> Manifest:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    arrays = {}
    for part in ("train", "val", "test"):
        arrays |= {f"{part}_images": images, f"{part}_labels": np.array([[0], [1]] * 3, np.uint8)}
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "toymnist.npz").exists():
        np.savez(root / "toymnist.npz", **arrays)
    return read_npz(root / "toymnist.npz")


READERS: dict[str, Callable[[Path], Manifest]] = {
    "read_breakhis": make_breakhis,
    "read_folders": make_folders,
    "read_csv_table": make_csv,
    "read_digits": make_digits,
    "read_bci": make_bci,
    "read_npz": make_npz,
    "read_manifest": lambda root: (make_csv(root), read_manifest(root / "t.csv"))[1],
}


@pytest.fixture(params=READERS, ids=str)
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Manifest:
    return READERS[request.param](tmp_path)


def test_every_public_reader_is_in_this_suite() -> None:
    found = set()
    for module in pkgutil.walk_packages(ensemble_kit.manifest.__path__, "ensemble_kit.manifest."):
        for name, value in inspect.getmembers(
            importlib.import_module(module.name), inspect.isfunction
        ):
            if name.startswith("read_") and value.__module__ == module.name:
                found.add(name)
    assert found == set(READERS)


def test_sample_ids_are_unique_and_stable(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for name, make in READERS.items():
        once, twice = make(tmp_path / name), make(tmp_path / name)
        assert once.sample_ids.tolist() == twice.sample_ids.tolist()
        assert once.digest == twice.digest


def test_every_path_leads_to_pixels_inside_the_root(manifest: Manifest) -> None:
    for path in manifest.table["path"][:4]:
        assert not path.startswith("/")
        pixels = read_image(manifest.root, path)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


def test_unknown_groups_have_a_caveat(manifest: Manifest) -> None:
    noted = any("its own group" in note for note in manifest.notes)
    assert noted == (not manifest.has_groups)
    assert manifest.has_groups or manifest.n_groups == len(manifest)


def test_a_manifest_is_restored_from_its_csv(manifest: Manifest, tmp_path: Path) -> None:
    manifest.write(tmp_path / "m.csv")
    back = Manifest.read(tmp_path / "m.csv", **manifest.about())
    assert back.digest == manifest.digest
    assert digest_json(back.table.astype(str).to_numpy().tolist()) == digest_json(
        manifest.table.astype(str).to_numpy().tolist()
    )


@pytest.mark.parametrize(
    "reader", [read_bci, read_breakhis, read_folders, read_csv_table, read_npz, read_manifest]
)
def test_a_missing_path_is_a_data_error_that_names_it(
    reader: Callable[..., Manifest], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="nowhere"):
        reader(tmp_path / "nowhere")
