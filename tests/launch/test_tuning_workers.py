"""Trials in worker processes: none is lost or repeated, and workers end with their parent."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

from ensemble_kit.errors import DataError, JobsFailedError
from ensemble_kit.launch.tuning import TuningWorkers
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run
from ensemble_kit.tune.storage import open_storage
from ensemble_kit.tune.trials import OUTCOME
from ensemble_kit.tune.tune_members import tune_members
from ensemble_kit.tune.tuning import Progress

pytestmark = pytest.mark.slow


def tiny(**recipe: Any) -> Member:
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 3e-3, **recipe}
    return Member("tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(**settings))


def workers() -> list[int]:
    """Process numbers of the tuning workers of this process; it may have other children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    kind = b"ensemble_kit.launch.tuning"
    return [int(c) for c in children if kind in Path(f"/proc/{c}/cmdline").read_bytes()]


def stored(run: Run) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="tiny_cnn", storage=open_storage(run)).get_trials()


def test_no_trial_is_lost_if_a_worker_is_killed(trained: Any, tmp_path: Path) -> None:
    run, seen = Run(tmp_path / "run"), list[Progress]()

    def tune(listener: Any) -> Any:
        return tune_members(
            [tiny(epochs=3)], trained.manifest, trained.folds, run, n_trials=5, device="cpu",
            precision="fp32", listener=listener, worker_pool=TuningWorkers(2),
        )  # fmt: skip

    def kill_one(progress: Progress) -> None:
        if progress.at_work:
            os.kill(workers()[0], signal.SIGKILL)

    with pytest.raises(JobsFailedError, match="SIGKILL"):
        tune(kill_one)
    assert not workers()
    result = tune(seen.append)
    assert len(result.members[0].trials) == 5
    assert len([p for p in seen if p.latest]) <= 5
    trials = stored(run)
    assert sum(OUTCOME in t.user_attrs for t in trials) == 5
    finished = [t for t in trials if OUTCOME in t.user_attrs]
    assert len({str(t.user_attrs["values"]) for t in finished}) == 5
    assert {t.state.name for t in trials} == {"COMPLETE", "FAIL"}


def test_an_error_of_a_worker_ends_the_tuning(trained: Any, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")

    def other_recipe(progress: Progress) -> None:
        """Before the workers start, make the study one of another recipe."""
        if progress.latest is None and not progress.at_work:
            study = optuna.load_study(study_name="tiny_cnn", storage=open_storage(run))
            study.set_user_attr("facts", {**study.user_attrs["facts"], "seed": 9})

    with pytest.raises(DataError, match="seed: 9 -> 0"):
        tune_members(
            [tiny()], trained.manifest, trained.folds, run, n_trials=2, device="cpu",
            listener=other_recipe, worker_pool=TuningWorkers(2),
        )  # fmt: skip
