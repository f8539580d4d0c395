"""The status of a run with a damaged file: only that job is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.errors import IntegrityError
from ensemble_kit.files import write_json
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.status import JobStatus, run_status
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe

BROKEN = ["{", "[]", "{}", '{"seconds": null, "epoch": "two"}']


def of_fold_0(jobs: list[JobStatus]) -> JobStatus:
    assert len(jobs) == 6
    first, *others = jobs
    assert {job.state for job in others} == {"done"}
    return first


@pytest.mark.parametrize("text", BROKEN)
def test_a_job_with_a_damaged_record_is_damaged(
    trained: Any, tmp_path: Path, cli: Callable[..., tuple[int, str]], text: str
) -> None:
    run = trained.copied_to(tmp_path / "run").run
    path = run.fold_dir("tiny_cnn", 0) / "fold.json"
    path.write_text(text)
    job = of_fold_0(run_status(run))
    assert job.state == "damaged"
    assert f"'{path}' is damaged" in job.reason
    assert f"'{path.parent}'" in job.reason
    code, printed = cli("status", run.path, "--watch")
    assert code == 0
    assert "5 of 6 jobs are done" in printed
    assert f"'{path}' is damaged" in printed


def test_training_names_a_damaged_record_and_what_to_do(trained: Any, tmp_path: Path) -> None:
    copy = trained.copied_to(tmp_path / "run")
    path = copy.run.fold_dir("tiny_cnn", 0) / "fold.json"
    path.write_text("{")
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=recipe)
    with pytest.raises(IntegrityError, match=r"fold\.json' .* Delete the folder"):
        fit_members([member], copy.manifest, copy.folds, copy.run, device="cpu")


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("reason", ["", "lightning"])
def test_a_damaged_training_state_is_named_in_the_status(
    trained: Any, tmp_path: Path, text: str, reason: str
) -> None:
    run = trained.copied_to(tmp_path / "run").run
    folder = run.fold_dir("tiny_cnn", 0)
    (folder / "fold.json").unlink()
    write_json(folder / "resume-3.json", {"epoch": 4})
    (folder / "resume-4.json").write_text(text)
    if reason:
        write_json(folder / "failed.json", {"reason": reason})
    job = of_fold_0(run_status(run))
    assert (job.state, job.epoch) == ("failed" if reason else "waiting", 4)
    assert job.reason.startswith(f"{reason}; '" if reason else "'")
    assert "resume-4.json' is damaged" in job.reason
    assert "resume-3.json" not in job.reason


@pytest.mark.parametrize("text", BROKEN)
def test_a_failure_with_a_damaged_reason_is_a_failure(
    trained: Any, tmp_path: Path, text: str
) -> None:
    run = trained.copied_to(tmp_path / "run").run
    folder = run.fold_dir("tiny_cnn", 0)
    (folder / "fold.json").unlink()
    (folder / "failed.json").write_text(text)
    job = of_fold_0(run_status(run))
    assert job.state == "failed"
    assert f"'{folder / 'failed.json'}'" in job.reason
