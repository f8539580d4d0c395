"""Training of all members: finished jobs are skipped, changed ones refused, logits collected."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit.members.jobs.engine as engine_module
from ensemble_kit import locks
from ensemble_kit.checked import write_checked
from ensemble_kit.errors import (
    DataError,
    EnvironmentFault,
    IntegrityError,
    JobsFailedError,
    UsageError,
)
from ensemble_kit.files import read_json, read_toml
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs import run_job as run_job_module
from ensemble_kit.members.jobs.events import Event, JobFailed, JobFinished, JobSkipped, Notice
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.status import run_status
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run


def member(
    network: str = "tiny_cnn", *, name: str = "", tuned: bool = False, **recipe: Any
) -> Member:
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, **recipe}
    return Member(
        network, name=name or network, image_size=16, pretrained=False, tuned=tuned, recipe=Recipe(**settings),
    )  # fmt: skip


@pytest.fixture
def fit(trained: Any) -> Callable[..., list[Event]]:
    """Train members into a run on the painted slides; return the events."""

    def call(run: Run, *members: Member, **options: Any) -> list[Event]:
        events: list[Event] = []
        fit_members(
            members, trained.manifest, trained.folds, run, device="cpu", listener=events.append, **options
        )  # fmt: skip
        return events

    return call


@pytest.fixture
def copied(trained: Any, tmp_path: Path) -> Run:
    run: Run = trained.copied_to(tmp_path / "run").run
    return run


def count(events: list[Event], kind: type) -> int:
    return sum(isinstance(e, kind) for e in events)


# -- collecting ----------------------------------------------------------------------------


def test_out_of_fold_rows_come_from_the_fold_that_held_them_out(trained: Any) -> None:
    train = trained.manifest.part("train")
    fold = trained.folds.of(train)
    for name in ("tiny_cnn", "tiny_mobile"):
        stored = trained.run.store.read(name)
        assert np.isfinite(stored.oof).all()
        for k in range(3):
            of_fold = np.load(trained.run.fold_dir(name, k) / "logits-oof.npy")
            assert np.array_equal(stored.oof[fold == k], of_fold)
            test = np.load(trained.run.fold_dir(name, k) / "logits-test.npy")
            assert np.array_equal(stored.test[k], test)
        assert stored.train_ids == tuple(train.sample_ids.tolist())


def test_the_same_seed_gives_the_same_run_again(
    trained: Any, fit: Callable[..., list[Event]], tmp_path: Path
) -> None:
    again = Run(tmp_path / "again")
    fit(again, member("tiny_cnn"), member("tiny_mobile"))
    for kind in ("oof", "test"):
        assert np.array_equal(again.predictions(kind).logits, trained.run.predictions(kind).logits)


def test_members_stay_in_the_order_of_the_requests(
    copied: Run, fit: Callable[..., list[Event]]
) -> None:
    fit(copied, member("tiny_resnet", epochs=1))
    fit(copied, member("tiny_mobile"), member("tiny_cnn"))
    assert copied.members() == ["tiny_cnn", "tiny_mobile", "tiny_resnet"]


def test_lost_predictions_are_collected_again_without_training(
    copied: Run, fit: Callable[..., list[Event]]
) -> None:
    before = copied.predictions("oof").logits
    for file in (copied.path / "predictions" / "tiny_cnn").iterdir():
        file.unlink()
    events = fit(copied, member("tiny_cnn"), member("tiny_mobile"))
    assert count(events, JobFinished) == 0
    assert np.array_equal(copied.predictions("oof").logits, before)


# -- repeated calls ------------------------------------------------------------------------


def test_a_second_call_trains_nothing_and_changes_no_file(
    copied: Run, fit: Callable[..., list[Event]]
) -> None:
    def times() -> dict[str, int]:
        return {
            str(p): p.stat().st_mtime_ns
            for p in copied.path.rglob("*")
            if p.is_file() and p.suffix in {".npy", ".safetensors", ".json", ".csv"}
        }

    before = times()
    events = fit(copied, member("tiny_cnn"), member("tiny_mobile"))
    assert (count(events, JobSkipped), count(events, JobFinished)) == (6, 0)
    assert times() == before


def test_only_the_missing_fold_is_trained(
    trained: Any, copied: Run, fit: Callable[..., list[Event]]
) -> None:
    (copied.fold_dir("tiny_cnn", 1) / "fold.json").unlink()
    events = fit(copied, member("tiny_cnn"), member("tiny_mobile"))
    assert [(e.member, e.fold) for e in events if isinstance(e, JobFinished)] == [("tiny_cnn", 1)]
    assert np.array_equal(copied.predictions().logits, trained.run.predictions().logits)


def test_changed_settings_are_refused_with_the_changed_keys(
    copied: Run, fit: Callable[..., list[Event]]
) -> None:
    with pytest.raises(DataError, match=r"recipe\.epochs: 2 -> 3") as caught:
        fit(copied, member("tiny_cnn", epochs=3))
    assert "--retrain" in caught.value.advice
    assert not (copied.path / "replaced").exists()


def test_a_refused_call_does_not_change_config_toml(
    copied: Run, fit: Callable[..., list[Event]]
) -> None:
    fit(copied, member("tiny_cnn"), member("tiny_mobile"), config={"epochs": 2})
    assert read_toml(copied.path / "config.toml") == {"epochs": 2}
    with pytest.raises(DataError, match="epochs: 2 -> 3"):
        fit(copied, member("tiny_cnn", epochs=3), config={"epochs": 3})
    assert read_toml(copied.path / "config.toml") == {"epochs": 2}
    fit(copied, member("tiny_cnn", epochs=3), config={"epochs": 3}, retrain=True)
    assert read_toml(copied.path / "config.toml") == {"epochs": 3}


def test_retraining_moves_away_unfinished_folds_too(
    copied: Run, fit: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(BaseException):
        pass

    real = run_job_module.save_resume

    def pulled(*state: Any) -> None:
        real(*state)
        raise StoppedError

    (copied.fold_dir("tiny_cnn", 2) / "fold.json").unlink()
    monkeypatch.setattr(run_job_module, "save_resume", pulled)
    with pytest.raises(StoppedError):
        fit(copied, member("tiny_cnn"))
    monkeypatch.undo()
    for k in (0, 1):  # training states are checked if no fold is finished
        shutil.rmtree(copied.fold_dir("tiny_cnn", k))
    with pytest.raises(DataError, match=r"differs in member.recipe.epochs: 2 -> 3"):
        fit(copied, member("tiny_cnn", epochs=3))
    events = fit(copied, member("tiny_cnn", epochs=3), retrain=True)
    assert count(events, JobFinished) == 3
    aside = copied.path / "replaced" / "tiny_cnn-1" / "members" / "fold-2"
    assert [p.name for p in aside.glob("resume-*.pt")] == ["resume-0.pt"]


def test_all_folds_are_trained_again_if_one_has_other_settings(
    copied: Run, fit: Callable[..., list[Event]]
) -> None:
    record = copied.fold_dir("tiny_cnn", 2) / "fold.json"
    content = read_json(record)
    content["made_of"]["seed"] = 7
    write_checked(record, content)
    events = fit(copied, member("tiny_cnn"), retrain=True)
    assert (count(events, JobSkipped), count(events, JobFinished)) == (0, 3)


def test_retraining_moves_the_old_folds_to_replaced(
    copied: Run, fit: Callable[..., list[Event]]
) -> None:
    old = copied.store.read("tiny_cnn").oof
    stored = copied.store.read("tiny_mobile").oof
    fit(copied, member("tiny_cnn", epochs=3), retrain=True)
    aside = copied.path / "replaced" / "tiny_cnn-1"
    assert np.array_equal(np.load(aside / "predictions" / "oof.npy"), old)
    assert len(list((aside / "members").glob("fold-*/fold.json"))) == 3
    assert not np.array_equal(copied.store.read("tiny_cnn").oof, old)
    assert np.array_equal(copied.store.read("tiny_mobile").oof, stored)


def test_a_tuned_recipe_is_retrained_automatically_with_a_caveat(
    copied: Run, fit: Callable[..., list[Event]]
) -> None:
    fit(copied, member("tiny_cnn", tuned=True, learning_rate=1e-3, batch_size=8))
    assert (copied.path / "replaced" / "tiny_cnn-1").is_dir()
    notes = copied.predictions("oof").notes
    assert "tiny_cnn: its recipe was tuned on these folds, so its out-of-fold metrics are optimistic." in notes  # fmt: skip
    with pytest.raises(DataError, match="epochs"):
        fit(copied, member("tiny_cnn", tuned=True, epochs=5, learning_rate=1e-4))


@pytest.mark.parametrize("name", ["logits-oof.npy", "model.safetensors"])
def test_a_damaged_fold_is_refused_by_its_path(
    copied: Run, fit: Callable[..., list[Event]], name: str
) -> None:
    path = copied.fold_dir("tiny_mobile", 2) / name
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"tiny_mobile/fold-2/{name}' does not match"):
        fit(copied, member("tiny_cnn"), member("tiny_mobile"))


def test_files_swapped_between_folds_are_refused(
    copied: Run, fit: Callable[..., list[Event]]
) -> None:
    one, two = (copied.fold_dir("tiny_cnn", k) / "model.safetensors" for k in (0, 1))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"fold-0/model\.safetensors"):
        fit(copied, member("tiny_cnn"))


# -- failures ------------------------------------------------------------------------------


def test_other_jobs_finish_after_a_failure_and_the_failed_job_is_run_again(
    fit: Callable[..., list[Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    whole = engine_module.run_job

    def failing(job: Job, listener: Any) -> None:
        if job.fold == 1:
            raise JobsFailedError("The loss became nan", "it must be finite", "Lower the rate")
        whole(job, listener)

    monkeypatch.setattr(engine_module, "run_job", failing)
    with pytest.raises(JobsFailedError, match="1 of 3 jobs failed: tiny_cnn fold 1") as caught:
        fit(run, member("tiny_cnn"))
    assert caught.value.exit_code == 5
    with pytest.raises(DataError, match="'tiny_cnn' lacks fold 1"):
        run.predictions("oof")
    partial = run.predictions("oof", partial=True)
    assert np.array_equal(partial.available[:, 0], partial.fold != 1)
    monkeypatch.undo()
    events = fit(run, member("tiny_cnn"))
    assert (count(events, JobSkipped), count(events, JobFinished), count(events, JobFailed)) == (2, 1, 0)  # fmt: skip
    assert run.predictions("oof").is_complete


def test_an_unexpected_error_fails_only_its_job_and_is_in_the_status(
    trained: Any, fit: Callable[..., list[Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Job.parts

    def broken(self: Job) -> Any:
        if self.fold == 1:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return real(self)

    run = Run(tmp_path / "run")
    monkeypatch.setattr(Job, "parts", broken)
    with pytest.raises(
        JobsFailedError, match=r"1 of 3 jobs failed: tiny_cnn fold 1: RuntimeError: mat1"
    ):
        fit(run, member())
    states = {job.fold: (job.state, job.reason) for job in run_status(run)}
    assert states[0] == states[2] == ("done", "")
    assert states[1] == ("failed", "RuntimeError: mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize("refused", sorted(locks.NO_LOCKS))
def test_a_disk_without_locks_is_reported_at_the_start(
    copied: Run, fit: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    def notices() -> list[str]:
        return [e.text for e in fit(copied, member("tiny_cnn")) if isinstance(e, Notice)]

    def lockless(*_: object) -> None:
        raise OSError(refused, os.strerror(refused))

    assert not any("file locks" in text for text in notices())
    monkeypatch.setattr(locks.fcntl, "flock", lockless)
    assert f"'{copied.path}'" in notices()[0]
    assert "file locks" in notices()[0]
    assert not list(copied.path.glob(".*.tmp"))


def test_a_shard_reports_only_its_own_jobs(copied: Run, fit: Callable[..., list[Event]]) -> None:
    reported = [
        e.fold for e in fit(copied, member("tiny_cnn"), shard=(2, 2)) if isinstance(e, JobSkipped)
    ]
    assert reported == [1]


@pytest.mark.parametrize("members", [[], ["tiny_cnn", "tiny_cnn"]])
def test_no_members_and_repeated_names_are_refused(
    fit: Callable[..., list[Event]], tmp_path: Path, members: list[str]
) -> None:
    with pytest.raises(UsageError):
        fit(Run(tmp_path / "run"), *(member(name) for name in members))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "error", "word"),
    [
        (Member("resnet81"), DataError, "resnet18"),
        (member(augmentation="lite"), UsageError, "light"),
        (Member("tiny_cnn", weights="nowhere.pt"), EnvironmentFault, "nowhere.pt"),
    ],
)
def test_invalid_members_are_refused_before_anything_is_written(
    fit: Callable[..., list[Event]], tmp_path: Path, wrong: Member, error: type, word: str
) -> None:
    with pytest.raises(error, match=word):
        fit(Run(tmp_path / "run"), member("tiny_mobile"), wrong)
    assert not (tmp_path / "run").exists()


def test_a_run_of_other_data_is_refused(
    copied: Run, trained: Any, fit: Callable[..., list[Event]]
) -> None:
    fewer = trained.manifest.take(np.arange(1, len(trained.manifest)))
    folds = dataclasses.replace(trained.folds)
    with pytest.raises(DataError, match="1 image is missing"):
        fit_members([member()], fewer, folds, copied, device="cpu")


def test_train_and_test_can_be_given_separately_or_together(trained: Any, tmp_path: Path) -> None:
    train, test = trained.manifest.part("train"), trained.manifest.part("test")
    run = Run(tmp_path / "run")
    fit_members([member("tiny_cnn")], train, trained.folds, run, test=test, device="cpu")
    want = trained.run.predictions("test").select(["tiny_cnn"])
    assert run.predictions("test").sample_ids.tolist() == want.sample_ids.tolist()
    assert np.array_equal(run.predictions("test").logits, want.logits)
    assert read_json(run.path / "run.json")["digests"]["manifest"] == trained.manifest.digest
