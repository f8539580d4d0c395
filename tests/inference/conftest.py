"""A trained run that is stacked, with prediction sets and an operating point; test images by path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kit.evaluation.decisions.set_coverage import SetOptions
from ensemble_kit.evaluation.decisions.thresholds import Aim, Referral
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.operating_point import DecisionOptions, operating_point
from ensemble_kit.evaluation.runs.prediction_sets import conformal_sets
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble

METHODS = ("vote", "simplex", "logistic")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def stacked(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A copy of the trained run with METHODS stacked, and sets and a decision of `simplex`."""
    own = trained.copied_to(tmp_path_factory.mktemp("stacked") / "slides")
    stack_run(own.run, METHODS, protocol=Protocol(n_resamples=0, fallback=False))
    conformal_sets(own.run, "simplex", SetOptions(miss=0.2, n_resamples=0))
    operating_point(
        own.run,
        "simplex",
        DecisionOptions(Aim("youden"), referral=Referral(share=0.3), n_resamples=0),
    )
    return own


@pytest.fixture(scope="session")
def ensemble(stacked: Any) -> Ensemble:
    """The run's `simplex`, which has sets and a decision."""
    return load_ensemble(stacked.run, method="simplex", device="cpu")


@pytest.fixture
def test_paths(stacked: Any) -> list[Path]:
    """The run's own test images."""
    test = stacked.manifest.part("test")
    return [test.root / path for path in test.table["path"]]
