"""Fixtures: a trained and stacked run, and the paths of its test images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def explained_run(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A copy of the trained run with `mean` and `logistic` stacked. Copy before you change it."""
    own = trained.copied_to(tmp_path_factory.mktemp("explained") / "slides")
    stack_run(own.run, ("mean", "logistic"), protocol=Protocol(n_resamples=0, fallback=False))
    return own


@pytest.fixture(scope="session")
def ensemble(explained_run: Any) -> Ensemble:
    return load_ensemble(explained_run.run, method="mean", device="cpu")


@pytest.fixture
def test_paths(explained_run: Any) -> list[Path]:
    test = explained_run.manifest.part("test")
    return [test.root / path for path in test.table["path"]]
