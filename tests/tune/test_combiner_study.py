"""Tuning of a combiner over the folds of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.combiners import make_combiner
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fitted_proba
from ensemble_kit.files import digest_file, read_npy, write_npy
from ensemble_kit.metrics.proper_scores import log_loss_per_sample
from ensemble_kit.run import Run
from ensemble_kit.tune.combiner_study import tune_combiner

CLI = Callable[..., tuple[int, str]]


@pytest.fixture
def run(trained: Any, tmp_path: Path) -> Run:
    found: Run = trained.copied_to(tmp_path / "run").run
    return found


def test_a_trial_has_the_loss_of_the_cross_fitted_combiner(run: Run) -> None:
    found = tune_combiner("logistic", run, n_trials=4)
    oof = run.predictions("oof")
    for one in found.trials:
        proba = cross_fitted_proba(make_combiner("logistic", **one.values), oof)
        assert one.loss == pytest.approx(log_loss_per_sample(oof.labels, proba).mean())
    assert found.trials[0].values == {"c": 0.03}
    assert found.best.loss == min(t.loss for t in found.trials if t.loss is not None)


def test_the_gain_uses_settings_chosen_on_the_other_folds(run: Run) -> None:
    found = tune_combiner("logistic", run, n_trials=4)
    oof = run.predictions("oof")
    fold, own = np.asarray(oof.fold), np.empty((len(oof), oof.n_classes))
    for k in np.unique(fold):
        others = oof.take(fold != k)
        inner = [
            log_loss_per_sample(
                others.labels, cross_fitted_proba(make_combiner("logistic", **t.values), others)
            ).mean()
            for t in found.trials
        ]
        best = make_combiner("logistic", **found.trials[int(np.argmin(inner))].values)
        fitted = best.fit(others.logits, others.labels, others.groups)
        own[fold == k] = fitted.predict_proba(oof.take(fold == k).logits)
    assert found.gain.tuned == pytest.approx(log_loss_per_sample(oof.labels, own).mean())


def test_test_predictions_do_not_change_the_tuning(run: Run, trained: Any, tmp_path: Path) -> None:
    other: Run = trained.copied_to(tmp_path / "other").run
    for index in (other.path / "predictions").glob("*/*.json"):
        record = read_checked(index, advice="")
        for path in index.parent.glob("test*.npy"):
            write_npy(path, 7.0 - read_npy(path))
            record["files"][path.name] = digest_file(path)
        write_checked(index, record)
    assert not np.allclose(run.predictions("test").logits, other.predictions("test").logits)
    want, got = (tune_combiner("mlp", one, n_trials=3) for one in (run, other))
    assert [(t.values, t.loss) for t in got.trials] == [(t.values, t.loss) for t in want.trials]
    assert got.gain == want.gain
    assert got.gain.default == pytest.approx(got.trials[0].loss)


def test_only_out_of_fold_predictions_are_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []
    read = Run.predictions

    def spy(self: Run, kind: str = "oof", **options: Any) -> Any:
        requested.append(kind)
        return read(self, kind, **options)

    monkeypatch.setattr(Run, "predictions", spy)
    tune_combiner("logistic", run, n_trials=2)
    assert requested == ["oof"]


def test_a_study_continues_and_refuses_another_seed(run: Run, trained: Any) -> None:
    before = tune_combiner("logistic", run, n_trials=2)
    assert tune_combiner("logistic", run, n_trials=3).trials[:2] == before.trials
    with pytest.raises(DataError, match="seed: 0 -> 1"):
        tune_combiner("logistic", run, n_trials=4, seed=1)


def test_a_combiner_without_settings_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="vote") as caught:
        tune_combiner("vote", run)
    assert caught.value.exit_code == 2


def test_the_command_prints_the_gain_and_the_settings_for_stack(cli: CLI, run: Run) -> None:
    code, printed = cli("tune", "--combiner", "logistic", "--trials", 3, "--run", run.path)
    assert code == 0, printed
    line = next(
        line for line in printed.splitlines() if "ensemble-kit stack" in line and "--set" in line
    )
    plain = [one for one in printed.splitlines() if "ensemble-kit stack" in one and one != line]
    is_open = "is not shown to help" in printed and "the default: " not in printed
    assert bool(plain) is is_open, "the default is recommended if the gain is not shown"
    settings = line.partition("ensemble-kit ")[2].split()
    assert cli(*settings, "--resamples", 20)[0] == 0
    code, printed = cli("tune", "best", "--json", "--run", run.path)
    assert json.loads(printed)["logistic@combiner"]["n_trials"] == 3
    assert cli("tune", "status", "--run", run.path)[0] == 0
