"""`import ensemble_kit as ek`: the public names and namespaces."""

from __future__ import annotations

import pytest

import ensemble_kit as ek
from ensemble_kit.combiners import combiner_class


def test_dir_shows_the_main_names_and_namespaces() -> None:
    shown = dir(ek)
    assert {"read_manifest", "fit_members", "evaluate", "write_report", "combiners"} <= set(shown)
    assert len(shown) < 30
    assert not [name for name in shown if name.startswith("_") and name != "__version__"]


@pytest.mark.parametrize("name", [*ek.__all__, *dir(ek)])
def test_a_public_name_exists(name: str) -> None:
    assert getattr(ek, name) is not None


@pytest.mark.parametrize(
    "namespace", ["combiners", "decisions", "diversity", "engines", "uncertainty"]
)
def test_a_namespace_lists_its_names(namespace: str) -> None:
    found = getattr(ek, namespace)
    assert dir(found)
    assert all(getattr(found, name) is not None for name in dir(found))
    with pytest.raises(AttributeError):
        _ = found.nonsense


def test_a_combiner_is_public_by_its_entry_in_the_registry() -> None:
    assert ek.MajorityVote is ek.combiners.MajorityVote is combiner_class("vote")
    assert "MajorityVote" in dir(ek.combiners)
    with pytest.raises(AttributeError):
        _ = ek.MinorityVote


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


def test_engines_tuning_and_status_are_public() -> None:
    assert ek.SlurmEngine(gpus=0, minutes=30, at_once=8).at_once == 8
    assert (ek.RayEngine(cpus=2).cpus, ek.LocalEngine(slots=2).slots) == (2, 2)
    recipe = ek.Recipe(optim=ek.Optim(name="sgd"), regularize=ek.Regularize(ema_decay=0.9))
    assert recipe.regularize.ema_decay == 0.9
    assert {"run_status", "tune_members"} <= set(ek.__all__)
