"""Features from training to the stacker, on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.evaluation.runs.stack_run import all_methods
from ensemble_kit.members.fit_members import fit_members

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def fit(trained: Any, tmp_path: Path) -> Callable[..., ek.Run]:
    recipe = ek.Recipe(epochs=1, batch_size=16)
    members = [
        ek.Member(name, image_size=16, pretrained=False, recipe=recipe)
        for name in ("tiny_cnn", "tiny_mobile")
    ]

    def made(**how: Any) -> ek.Run:
        run = ek.Run(tmp_path / "run")
        fit_members(members, trained.manifest, trained.folds, run, device="cpu", **how)
        return run

    return made


def test_a_run_without_features_is_refused_with_the_command_that_adds_them(
    fit: Callable[..., ek.Run], cli: Call
) -> None:
    run = fit()
    code, printed = cli("stack", "--run", run.path, "--method", "feature-mlp")
    assert code == 3
    assert "'tiny_cnn'" in printed
    assert "'tiny_mobile'" in printed
    assert "train-members --keep-features --run" in printed
    code, printed = cli("stack", "--run", run.path, "--method", "mean", "--resamples", 0)
    assert code == 0
    assert not run.keeps_features
    assert "feature-mlp" not in all_methods(3)


def test_features_can_be_added_to_a_trained_run(fit: Callable[..., ek.Run], cli: Call) -> None:
    fit()
    run = fit(keep_features=True)
    assert run.keeps_features
    assert "feature-mlp" in all_methods(3, features=True)
    oof = run.predictions("oof", features=True)
    test = run.predictions("test", features=True)
    assert oof.features is not None
    assert test.features is not None
    assert [v.shape[1:] for v in oof.features.values] == [(1, 64), (1, 96)]
    assert [v.shape[1:] for v in test.features.values] == [(3, 64), (3, 96)]
    np.testing.assert_array_equal(oof.features.spaces[:, 0], oof.fold)
    code, printed = cli(
        "stack", "--run", run.path, "--method", "feature-mlp", "--resamples", 0, "--json"
    )
    assert code == 0, printed
    metrics = json.loads(printed)["methods"]["feature-mlp"]
    assert metrics["cross_fitted"]["n"] == len(oof)
    assert metrics["test"]["n"] == len(test)
    assert metrics["notes"]
    fitted = ek.load_combiner(run.ensemble_dir("feature-mlp"))
    assert fitted.n_members_ == 2


def test_feature_methods_refuse_quorum_nested_and_fold_models(
    fit: Callable[..., ek.Run], cli: Call
) -> None:
    run = fit(keep_features=True)
    code, printed = cli("stack", "--run", run.path, "--method", "feature-mlp", "--quorum", 1)
    assert code == 2
    assert "--quorum" in printed
    assert "feature-mlp" in printed
    code, printed = cli("stack", "--run", run.path, "--method", "feature-mlp", "--nested")
    assert code == 2
    assert "feature-mlp" in printed
    with pytest.raises(ek.errors.UsageError, match="fold_models"):
        run.predictions("test", fold_models=True, features=True)
