"""Folds of earlier versions of the training code are not mixed with new ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import Event, JobFinished, JobSkipped
from ensemble_kit.members.jobs.job import TRAINER, Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe

MEMBER = "tiny_cnn"


def made_by(path: Path, trainer: int | None) -> None:
    """Change the version in the record of a finished fold; None: no version, as in the first one."""
    content = json.loads(path.read_text())
    assert content.pop("trainer") == TRAINER
    if trainer is not None:
        content["trainer"] = trainer
    write_checked(path, content)


def again(copy: Any, **more: Any) -> list[Event]:
    events: list[Event] = []
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    member = Member(MEMBER, image_size=16, pretrained=False, recipe=recipe)
    fit_members(
        [member], copy.manifest, copy.folds, copy.run, device="cpu", listener=events.append, **more
    )
    return events


@pytest.fixture
def copy(trained: Any, tmp_path: Path) -> Any:
    return trained.copied_to(tmp_path / "copy")


@pytest.mark.parametrize("trainer", [None, TRAINER + 1])
def test_a_finished_member_of_another_version_is_not_changed(
    copy: Any, trainer: int | None
) -> None:
    for k in range(3):
        made_by(copy.run.fold_dir(MEMBER, k) / "fold.json", trainer)
    assert [type(e) for e in again(copy)] == [JobSkipped] * 3


@pytest.mark.parametrize("trainer", [None, TRAINER + 1])
def test_folds_of_different_versions_are_not_mixed(copy: Any, trainer: int | None) -> None:
    made_by(copy.run.fold_dir(MEMBER, 0) / "fold.json", trainer)
    (copy.run.fold_dir(MEMBER, 1) / "fold.json").unlink()
    printed = f"version {trainer or 1} of the training.*this is version {TRAINER}.*--retrain"
    with pytest.raises(DataError, match=printed):
        again(copy)
    events = again(copy, retrain=True)
    assert sum(isinstance(e, JobFinished) for e in events) == 3


def test_a_job_begun_by_another_version_is_not_resumed(
    make_job: Callable[..., Job], interrupt: Callable[[Job, int], None]
) -> None:
    job = make_job()
    interrupt(job, 1)
    (state,) = job.folder.glob("resume-*.json")
    content = json.loads(state.read_text())
    del content["made_of"]["trainer"]
    write_checked(state, content)
    with pytest.raises(DataError, match="differs in trainer: 1 -> 2"):
        run_job(job)
