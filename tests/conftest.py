"""Fixtures for all tests: a separate cache, synthetic slides, a trained run, real images, the CLI."""

from __future__ import annotations

import os

# Set before the imports that read it; otherwise threads of several test processes slow each other.
os.environ["OMP_NUM_THREADS"] = "1"

import dataclasses
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.folds import Folds, make_folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import Run

CLASSES = ("benign", "malignant")
STACKED = ("vote", "simplex", "logistic")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a temporary cache folder and no network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENSEMBLE_KIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_enabled() -> None:
    """Restore the handler of SIGINT, which shells disable for background processes."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real images: ENSEMBLE_KIT_DATA, or `../shared/data` next to the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ENSEMBLE_KIT_DATA", default))
    if not (folder / "BreaKHis_v1").is_dir():
        pytest.skip("no real images: set ENSEMBLE_KIT_DATA to their folder")
    return folder


def paint_slides(
    root: Path, *, n_patients: int = 10, n_images: int = 4, classes: tuple[str, ...] = CLASSES
) -> Path:
    """Write small noisy images `root/CLASS/P01_0.png`; each class is a little brighter."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for p in range(n_patients):
            # Patients differ in brightness about as much as classes, as with stains.
            shade = 60 + 50 * c + rng.integers(0, 40)
            for i in range(n_images):
                pixels = rng.integers(0, 80, (16, 16, 3)) + shade
                file = root / name / f"P{c * n_patients + p:02d}_{i}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(file)
    return root


@pytest.fixture(scope="session")
def paint() -> Callable[..., Path]:
    """`paint_slides`, for tests that need other images."""
    return paint_slides


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, ten patients each, four images of 16 x 16 pixels per patient. Do not change."""
    return paint_slides(tmp_path_factory.mktemp("data") / "slides")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained run with its manifest and folds."""

    run: Run
    manifest: Manifest
    folds: Folds

    def copied_to(self, path: Path) -> Trained:
        """A copy of the run in `path`, which a test can change."""
        shutil.copytree(self.run.path, path)
        return dataclasses.replace(self, run=Run(path))


@pytest.fixture(scope="session")
def trained(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two tiny networks with three folds, trained once for all tests. Copy it before a change."""
    import torch

    from ensemble_kit.images.digests import with_digests
    from ensemble_kit.members.fit_members import fit_members
    from ensemble_kit.members.member import Member
    from ensemble_kit.members.recipe import Recipe

    torch.set_num_threads(1)
    manifest = Manifest.from_folders(slides, group_pattern=r"(P\d+)_")
    train, test = manifest.split(test_size=0.2, seed=0)
    manifest = with_digests(train.joined(test))
    folds = make_folds(manifest, 3, seed=0)
    run = Run(tmp_path_factory.mktemp("checkpoints") / "slides")
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    fit_members(
        [
            Member(name, image_size=16, pretrained=False, recipe=recipe)
            for name in ("tiny_cnn", "tiny_mobile")
        ],
        manifest,
        folds,
        run,
        device="cpu",
    )
    return Trained(run, manifest, folds)


@pytest.fixture(scope="session")
def stacked(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A copy of the trained run with the methods STACKED, and sets and a decision of `simplex`."""
    from ensemble_kit.evaluation.decisions.set_coverage import SetOptions
    from ensemble_kit.evaluation.decisions.thresholds import RejectOption, ThresholdTarget
    from ensemble_kit.evaluation.protocol import Protocol
    from ensemble_kit.evaluation.runs.operating_point import DecisionOptions, operating_point
    from ensemble_kit.evaluation.runs.prediction_sets import conformal_sets
    from ensemble_kit.evaluation.runs.stack_run import stack_run

    own = trained.copied_to(tmp_path_factory.mktemp("stacked") / "slides")
    stack_run(own.run, STACKED, protocol=Protocol(n_resamples=0, fallback=False))
    conformal_sets(own.run, "simplex", SetOptions(alpha=0.2, n_resamples=0))
    operating_point(
        own.run,
        "simplex",
        DecisionOptions(
            ThresholdTarget("youden"), reject_option=RejectOption(share=0.3), n_resamples=0
        ),
    )
    return own


@pytest.fixture(scope="session")
def ensemble(stacked: Trained) -> Any:
    """The ensemble `simplex` of the run, with prediction sets and a decision."""
    from ensemble_kit.inference.ensemble import load_ensemble

    return load_ensemble(stacked.run, method="simplex", device="cpu")


@pytest.fixture
def test_paths(stacked: Trained) -> list[Path]:
    """The test images of the run."""
    test = stacked.manifest.part("test")
    return [test.root / path for path in test.table["path"]]


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """Call the command line in this process, in an empty folder; return exit code and output."""
    from ensemble_kit.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ensemble-kit", *map(str, words)])
        capsys.readouterr()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call
