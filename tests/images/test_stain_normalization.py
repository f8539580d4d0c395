"""Stain normalisation of images and tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.images.stain_normalization import (
    MACENKO_VECTORS,
    REINHARD_MEAN,
    REINHARD_SPREAD,
    normalise,
    stain_vectors,
    to_lab,
    with_stain_normalisation,
)
from ensemble_kit.images.tiles.build import build_tiles
from ensemble_kit.manifest.layouts.bci import read_bci
from ensemble_kit.manifest.phantom.patients import draw_patients
from ensemble_kit.manifest.phantom.write import draw_pair, write_phantom
from ensemble_kit.seeding import generator

FIELDS = [draw_pair(p, 96, generator(0, p.name))[0] for p in draw_patients(12)[:6]]


def test_reinhard_gives_every_image_the_reference_statistics() -> None:
    for field in FIELDS:
        lab = to_lab(normalise(field, "reinhard"))
        np.testing.assert_allclose(lab.mean(axis=0), REINHARD_MEAN, atol=0.02)
        np.testing.assert_allclose(lab.std(axis=0), REINHARD_SPREAD, atol=0.03)


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_normalisation_makes_slides_more_similar(method: str) -> None:
    before = np.array([f.mean(axis=(0, 1)) for f in FIELDS])
    after = np.array([normalise(f, method).mean(axis=(0, 1)) for f in FIELDS])
    assert after.std(axis=0).mean() < 0.8 * before.std(axis=0).mean()


def test_macenko_finds_two_mixed_stains() -> None:
    rng = np.random.default_rng(0)
    pure = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    amounts = np.concatenate(
        [rng.uniform(0.3, 1, (500, 1)) * (1, 0.02), rng.uniform(0.3, 1, (500, 1)) * (0.02, 1)]
    )
    found = stain_vectors(amounts @ pure)
    for row, known in zip(found / np.linalg.norm(found, axis=1)[:, None], pure, strict=True):
        assert row @ known / np.linalg.norm(known) > 0.995


def test_the_reference_vectors_are_unit_vectors() -> None:
    np.testing.assert_allclose(np.linalg.norm(MACENKO_VECTORS, axis=1), 1, atol=0.01)


def test_glass_is_not_changed_and_none_changes_nothing() -> None:
    glass = np.full((32, 32, 3), 240, np.uint8)
    np.testing.assert_array_equal(normalise(glass, "macenko"), glass)
    np.testing.assert_array_equal(normalise(FIELDS[0], "none"), FIELDS[0])


def test_normalisation_changes_the_tiles(tmp_path: Path) -> None:
    root = write_phantom(tmp_path / "p", n_patients=12, images_per_patient=1, image_size=32)
    plain = read_bci(root, stain="he")
    changed = with_stain_normalisation(plain, "reinhard")
    assert changed.digest != plain.digest
    a, b = (build_tiles(m, 32, cache_dir=tmp_path / "c") for m in (plain, changed))
    assert a.digest != b.digest
    np.testing.assert_array_equal(b.pixels[3], normalise(a.pixels[3], "reinhard"))


def test_ihc_and_unknown_methods_are_refused(tmp_path: Path) -> None:
    root = write_phantom(tmp_path / "p", n_patients=12, images_per_patient=1, image_size=32)
    with pytest.raises(DataError):
        with_stain_normalisation(read_bci(root), "macenko")
    with pytest.raises(UsageError, match="Did you mean 'macenko'"):
        with_stain_normalisation(read_bci(root, stain="he"), "macenco")
