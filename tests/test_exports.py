"""`import ensemble_kit as ek`: every public name, and where it lives."""

from __future__ import annotations

import importlib

import pytest

import ensemble_kit as ek
from ensemble_kit import _HOME


@pytest.mark.parametrize("name", ek.__all__)
def test_a_public_name_is_the_object_of_its_home(name: str) -> None:
    home = importlib.import_module(f"ensemble_kit.{_HOME[name]}")
    assert getattr(ek, name) is getattr(home, name)


def test_the_classical_tests_and_the_registry_of_metrics_are_public() -> None:
    assert ek.nadeau_bengio([0.1, 0.1, 0.2], test_share=0.5).estimate == pytest.approx(0.4 / 3)
    assert ek.holm([0.01, 0.04]).tolist() == [0.02, 0.04]
    assert ek.metric("log_loss") is ek.METRICS["log_loss"]
    assert {
        "delong",
        "evaluate_all",
        "compare_predictions",
        "metric_interval",
        "mcnemar_exact",
        "permutation_test",
        "risk_coverage",
        "study_members",
        "wilson_interval",
    } <= set(ek.__all__)


def test_what_launches_tunes_and_watches_a_training_is_public() -> None:
    assert ek.SlurmEngine(gpus=0, minutes=30, at_once=8).at_once == 8
    assert (ek.RayEngine(cpus=2).cpus, ek.LocalEngine(slots=2).slots) == (2, 2)
    recipe = ek.Recipe(optim=ek.Optim(name="sgd"), regularize=ek.Regularize(ema_decay=0.9))
    assert recipe.regularize.ema_decay == 0.9
    assert {"run_status", "tune_members"} <= set(ek.__all__)
