"""Jobs that were interrupted or failed resume bit for bit, with their own settings only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import ensemble_kit.members.networks.build  # noqa: F401  (registers the tiny networks)
from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError, JobsFailedError
from ensemble_kit.files import digest_json, read_csv
from ensemble_kit.members.jobs.events import Event, JobStarted, Notice
from ensemble_kit.members.jobs.fold_files import read_record
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.training import step as step_module
from ensemble_kit.members.training.fit import Fit
from ensemble_kit.members.training.optim import rate_at
from ensemble_kit.members.training.state import Training

pytestmark = pytest.mark.slow

MakeJob = Callable[..., Job]
Interrupt = Callable[[Job, int], None]
StoredFiles = Callable[[Job], dict[str, bytes]]


def run(job: Job) -> Job:
    run_job(job)
    return job


RECIPES = [
    {},
    {"member": {"drop_rate": 0.4}, "sampling": "balanced"},
    {"select_on": "inner", "patience": 2},
    {"regularize": {"ema_decay": 0.9}, "class_weights": "balanced"},
    {"regularize": {"average_last": 2}},
    {"schedule": "plateau", "select_on": "inner", "optim": {"plateau_epochs": 1}},
    {"optim": {"name": "sgd", "head_only_epochs": 1, "clip_norm": 1.0}},
    {"optim": {"name": "lookahead_adamw"}},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_job_equals_an_uninterrupted_one_bit_for_bit(
    stored_files: StoredFiles,
    interrupt: Interrupt,
    make_job: MakeJob,
    recipe: dict[str, object],
    after: int,
) -> None:
    whole = run(make_job("whole", epochs=4, **recipe))
    torn = make_job("torn", epochs=4, **recipe)
    interrupt(torn, after)
    assert not torn.finished()
    first_epochs: list[int] = []
    run_job(
        torn, lambda e: first_epochs.append(e.first_epoch) if isinstance(e, JobStarted) else None
    )
    assert first_epochs == [after]
    assert stored_files(torn) == stored_files(whole)


def test_an_interrupted_job_does_not_resume_with_other_settings(
    interrupt: Interrupt, make_job: MakeJob
) -> None:
    interrupt(make_job("run"), 2)
    other = make_job("run", learning_rate=1e-3)
    states = {p.name for p in other.folder.glob("resume-*")}
    for refused in (other.finished, lambda: run_job(other)):
        with pytest.raises(DataError, match=r"recipe.learning_rate: 0.003 -> 0.001"):
            refused()
    assert {p.name for p in other.folder.glob("resume-*")} == states
    assert not make_job("run").finished()


def test_a_training_state_without_settings_is_refused(
    interrupt: Interrupt, make_job: MakeJob
) -> None:
    job = make_job("run")
    interrupt(job, 2)
    for path in job.folder.glob("resume-*.json"):
        record = json.loads(path.read_text())
        write_checked(path, {**record, "made_of": digest_json(record["made_of"])})
    with pytest.raises(DataError, match=f"'{job.folder}' differs"):
        job.finished()


def test_notices_and_seconds_are_kept_over_an_interruption(
    interrupt: Interrupt, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = step_module._forward_backward

    def poisoned(training: Training, *rest: Any) -> Any:
        loss, parts = real(training, *rest)
        bad = training.epoch == 1 and training.rate_factor == 1.0
        return (loss * float("nan") if bad else loss), parts

    monkeypatch.setattr(step_module, "_forward_backward", poisoned)
    job, slept = make_job(epochs=4), 0.5
    real_parts = job.parts()
    monkeypatch.setattr(Job, "parts", lambda self: time.sleep(slept) or real_parts)
    interrupt(job, 3)
    slept = 0.0
    run_job(job)
    record = read_record(job.folder)
    assert record is not None
    assert ["rolled back" in text for text in record["said"]].count(True) == 1
    assert "rolled back" in record["said"][0]
    assert record["seconds"] >= 0.5


def nan_after_epoch_2(monkeypatch: pytest.MonkeyPatch, *, factors: set[float]) -> None:
    """NaN as the validation logits of the second epoch, at these multiples of the rate."""
    real = Fit.validation_logits

    def thrown_off(self: Fit, *rest: Any) -> Any:
        off = self.training.epoch == 1 and self.training.rate_factor in factors
        return real(self, *rest) * (np.float32("nan") if off else np.float32(1))

    monkeypatch.setattr(Fit, "validation_logits", thrown_off)


def test_row_34_an_epoch_with_a_nan_validation_loss_is_rolled_back(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan_after_epoch_2(monkeypatch, factors={1.0})
    job = run(make_job())
    history, record = read_csv(job.folder / "history.csv"), read_record(job.folder)
    assert np.isfinite(history["val_log_loss"].astype(float)).all()
    rates = [rate_at(s, job.member.recipe, 3) for s in (2, 5, 8)]
    want = np.array(rates) * [1, 0.1, 0.1]
    np.testing.assert_allclose(history["learning_rate"].astype(float), want)
    assert record is not None
    assert "nan after epoch 2" in record["said"][0]


def test_row_34_a_second_nan_fails_the_job_and_is_not_stored(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan_after_epoch_2(monkeypatch, factors={1.0, 0.1})
    job = make_job()
    with pytest.raises(JobsFailedError, match="nan after epoch 2, again"):
        run_job(job)
    (state,) = [torch.load(p, weights_only=True) for p in job.folder.glob("resume-*.pt")]
    assert [np.isfinite(row["val_log_loss"]) for row in state["history"]] == [True]


def test_an_unexpected_error_is_stored_with_its_traceback(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(epochs=1)

    def broken(self: Job) -> Any:
        raise ValueError("mat1 and mat2 shapes\ncannot be multiplied")

    with monkeypatch.context() as patch:
        patch.setattr(Job, "parts", broken)
        with pytest.raises(ValueError, match="mat1"):
            run_job(job)
    noted = json.loads((job.folder / "failed.json").read_text())
    assert noted["reason"] == "ValueError: mat1 and mat2 shapes"
    assert "in broken" in noted["traceback"]
    run_job(job)
    assert not (job.folder / "failed.json").exists()


def test_a_job_resumes_from_the_state_before_a_damaged_one(
    stored_files: StoredFiles, interrupt: Interrupt, make_job: MakeJob
) -> None:
    job = make_job("run", epochs=4)
    interrupt(job, 3)
    newest = max(job.folder.glob("resume-*.pt"), key=lambda p: int(p.stem.split("-")[1]))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    events: list[Event] = []
    run_job(job, events.append)
    assert next(e.first_epoch for e in events if isinstance(e, JobStarted)) == 2
    assert any(newest.name in str(e) and "damaged" in str(e) for e in events)
    assert stored_files(job) == stored_files(run(make_job("whole", epochs=4)))


def test_a_finished_job_leaves_no_training_state_and_is_not_run_again(make_job: MakeJob) -> None:
    job = run(make_job())
    assert not list(job.folder.glob("resume*"))
    before = (job.folder / "fold.json").stat().st_mtime_ns
    events: list[Event] = []
    run_job(job, events.append)
    assert events == []
    assert (job.folder / "fold.json").stat().st_mtime_ns == before


# -- threads -------------------------------------------------------------------------------


def test_a_job_resumes_with_its_number_of_threads(
    make_job: MakeJob, interrupt: Interrupt, stored_files: StoredFiles
) -> None:
    torch.set_num_threads(2)
    whole, job = run(make_job("whole")), make_job()
    interrupt(job, 1)
    torch.set_num_threads(1)
    events: list[Event] = []
    run_job(job, events.append)
    record = read_record(job.folder)
    assert record is not None
    assert record["threads"] == 2
    assert stored_files(job) == stored_files(whole)
    assert torch.get_num_threads() == 1
    assert any(isinstance(e, Notice) and "2 CPU threads" in e.text for e in events)


def test_folds_with_other_numbers_of_threads_are_reported(make_job: MakeJob) -> None:
    def printed(job: Job) -> list[str]:
        events: list[Event] = []
        run_job(job, events.append)
        return [e.text for e in events if isinstance(e, Notice) and "threads" in e.text]

    assert printed(make_job(fold=0)) == []
    assert printed(make_job(fold=1)) == []
    torch.set_num_threads(2)
    (text,) = printed(make_job(fold=2))
    assert "fold 2" in text
    assert "fold 0 with 1" in text


def test_the_history_of_an_earlier_version_gets_todays_column_names() -> None:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    names = ("best_epoch", "best_score", "best_weights", "rate_factor", "micro_batches")
    state: dict[str, Any] = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
    state |= {"scaler": {}, "history": [{"val_answered_classes": 2}], **dict.fromkeys(names)}
    training = SimpleNamespace(model=network, optimizer=optimizer, averaged=None)
    Training.restore(training, state)  # type: ignore[arg-type]
    assert training.history == [{"val_predicted_classes": 2}]
