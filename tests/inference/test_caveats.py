"""Caveats of a method and of single images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.files import digest_bytes
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.find_images import find_sources
from ensemble_kit.inference.image_caveats import TRAINED, KnownImages
from ensemble_kit.inference.method_caveats import of_chance, of_other_methods
from ensemble_kit.inference.predict_files import predict_files
from ensemble_kit.inference.stored_method import open_method
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import Run

NAME = "SOB_B_A-14-22549AB-100-001"


def painted(folder: Path, name: str, seed: int) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.png"
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def breakhis(tmp_path: Path) -> tuple[KnownImages, Path]:
    """A run's images with BreakHis names at 100x, and their folder."""
    image = painted(tmp_path / "run", NAME, 0)
    test = painted(tmp_path / "run", "SOB_M_DC-14-11031-100-001", 1)
    rows = [
        (path.stem, path.name, label, label, split, "100", digest_bytes(path.read_bytes()))
        for path, label, split in ((image, "benign", "train"), (test, "malignant", "test"))
    ]
    columns = "sample_id", "path", "label", "group", "split", "magnification", "sha256"
    return KnownImages.of(Manifest.from_records(rows, columns=columns)), tmp_path


def caveats_of(known: KnownImages, path: Path) -> tuple[str, ...]:
    (source,) = find_sources([str(path)]).sources
    return known.caveats(source)


def test_a_training_image_is_recognized_by_its_content_and_its_breakhis_name(
    breakhis: tuple[KnownImages, Path],
) -> None:
    known, home = breakhis
    (home / "new").mkdir()
    copy = shutil.copy(home / "run" / f"{NAME}.png", home / "new" / "renamed.png")
    assert caveats_of(known, home / "run" / f"{NAME}.png") == (TRAINED,)
    assert caveats_of(known, Path(copy)) == (TRAINED,)
    assert caveats_of(known, painted(home / "new", NAME, 5)) == (TRAINED,)
    assert caveats_of(known, home / "run" / "SOB_M_DC-14-11031-100-001.png") == ()
    assert caveats_of(known, painted(home / "new", "other", 6)) == ()


def test_another_magnification_than_the_run_gives_a_caveat(
    breakhis: tuple[KnownImages, Path],
) -> None:
    known, home = breakhis
    (caveat,) = caveats_of(known, painted(home / "new", "SOB_B_A-14-22549AB-40-001", 5))
    assert "40x" in caveat
    assert "100x" in caveat


def test_predictions_and_tables_have_the_caveats_of_each_image(
    ensemble: Ensemble, stacked: Any, test_paths: list[Path], paint: Callable[..., Path], tmp_path: Path
) -> None:  # fmt: skip
    train = stacked.manifest.part("train")
    paths = [train.root / train.table["path"][0], *test_paths[:2]]
    found = ensemble.predict_all(paths)
    assert found.caveats == ((TRAINED,), (), ())
    assert found.frame()["caveat"].tolist() == [TRAINED, "", ""]
    assert ["caveats" in one for one in found.records()] == [True, False, False]
    done = predict_files(
        ensemble, find_sources([str(p) for p in paths]).sources, tmp_path / "p.csv"
    )
    assert done.caveats == {TRAINED: 1}
    assert ensemble.predict_all(np.asarray(Image.open(paths[0]))).caveats == ((),)


def test_a_method_has_the_caveats_of_the_data_but_not_of_the_folds(
    stacked: Any, tmp_path: Path
) -> None:
    own = stacked.copied_to(tmp_path / "run")
    record = read_checked(own.run.path / "run.json", advice="")
    record["manifest"]["notes"], record["folds"]["notes"] = ["of the data"], ["of the folds"]
    write_checked(own.run.path / "run.json", record)
    notes = open_method(Run(own.run.path), "vote").notes
    assert "of the data" in notes
    assert "of the folds" not in notes


def test_a_caveat_names_the_method_with_prediction_sets_and_decisions(stacked: Any) -> None:
    assert of_other_methods(stacked.run, "simplex") == []
    sets, decisions = of_other_methods(stacked.run, "vote")
    assert "--method simplex" in sets
    assert "conformal --method vote" in sets
    assert "operating-point --method vote" in decisions


@pytest.mark.parametrize(
    ("value", "low", "on_test", "has_caveat"),
    [
        (0.8, 0.6, 0.4, False),
        (0.8, 0.4, 0.4, True),
        (0.45, 0.2, 0.4, True),
        (0.8, 0.4, 0.6, False),  # above chance on one part is enough, as in `stack`
        (0.8, None, None, False),
    ],
)
def test_a_method_not_better_than_chance_gets_a_caveat(
    stacked: Any,
    tmp_path: Path,
    value: float,
    low: float | None,
    on_test: float | None,
    has_caveat: bool,
) -> None:
    own = stacked.copied_to(tmp_path / "run")
    path = own.run.ensemble_dir("vote") / "metrics.json"
    metrics = read_checked(path, advice="")
    high = None if low is None else 0.9
    for part, lowest in (("cross_fitted", low), ("test", on_test)):
        metrics[part]["balanced_accuracy"] = {"value": value, "low": lowest, "high": high}
    write_checked(path, metrics)
    found = of_chance(own.run, "vote")
    assert len(found) == has_caveat
    assert all(f"{value:.3f}" in one and "vote" in one for one in found)
    assert of_chance(own.run, "tiny_cnn") == []
