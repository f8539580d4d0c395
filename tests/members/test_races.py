"""Several processes on one run: finished folds are not lost, and short locks are waited for."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.checked import write_checked
from ensemble_kit.errors import IntegrityError, RunLockedError
from ensemble_kit.locks import file_lock
from ensemble_kit.members.jobs import collect as collect_module
from ensemble_kit.members.jobs import fold_files as checkpoint
from ensemble_kit.members.jobs.collect import collect
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.progress_files import claimed
from ensemble_kit.run import lock as hold


def finished_job(trained: Any, make_job: Callable[..., Job], path: Path) -> Job:
    copy = trained.copied_to(path)
    job = make_job(epochs=2)
    return Job(copy.run, job.member, 0, copy.manifest, copy.folds, job.tiles, job.device)


def test_a_fold_that_finishes_during_a_collection_is_not_lost(
    trained: Any, make_job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished_job(trained, make_job, tmp_path / "copy")
    shutil.rmtree(job.run.store.root / "tiny_cnn")
    late, aside = job.run.fold_dir("tiny_cnn", 2), tmp_path / "late"
    late.rename(aside)
    inside, real = threading.Event(), checkpoint.read_logits

    def slow(folder: Path, *more: Any) -> Any:
        if not inside.is_set():
            inside.set()
            time.sleep(0.5)
        return real(folder, *more)

    monkeypatch.setattr(collect_module.checkpoint, "read_logits", slow)
    first = threading.Thread(target=collect, args=(job,))
    first.start()
    assert inside.wait(60)
    aside.rename(late)
    collect(job)
    first.join()
    stored = job.run.store.read("tiny_cnn")
    assert stored.about["folds_done"] == [0, 1, 2]
    assert np.isfinite(stored.oof).all()


def test_a_fold_with_other_settings_is_not_collected(
    trained: Any, make_job: Any, tmp_path: Path
) -> None:
    job = finished_job(trained, make_job, tmp_path / "copy")
    record = job.run.fold_dir("tiny_cnn", 2) / "fold.json"
    content = json.loads(record.read_text())
    content["made_of"]["member"]["recipe"]["epochs"] = 30
    write_checked(record, content)
    collect(job)
    stored = job.run.store.read("tiny_cnn")
    assert stored.about["folds_done"] == [0, 1]
    of_other = job.folds.of(job.manifest.part("train")) == 2
    np.testing.assert_array_equal(np.isnan(stored.oof).all(axis=1), of_other)


def test_folds_are_not_moved_away_while_one_of_them_is_trained(
    trained: Any, tmp_path: Path
) -> None:
    run = trained.copied_to(tmp_path / "copy").run
    with claimed(run.fold_dir("tiny_cnn", 1)):
        with pytest.raises(RunLockedError, match=f"process {os.getpid()}"):
            run.set_aside("tiny_cnn")
        assert (run.fold_dir("tiny_cnn", 1) / "fold.json").is_file()
        assert not list(run.path.glob("replaced/*/*"))
    assert (run.set_aside("tiny_cnn") / "members" / "fold-1" / "fold.json").is_file()


def test_a_short_lock_does_not_stop_a_job_from_starting(tmp_path: Path) -> None:
    short = file_lock(tmp_path / ".lock")
    short.__enter__()
    threading.Timer(0.3, short.__exit__, args=(None, None, None)).start()
    with claimed(tmp_path):
        assert hold.is_held(tmp_path)


def test_a_lock_that_stays_is_an_error_after_a_short_wait(tmp_path: Path) -> None:
    with claimed(tmp_path):
        second = hold.held(tmp_path, seconds=0.1)
        with pytest.raises(RunLockedError, match=f"process {os.getpid()}"):
            second.__enter__()


def test_predictions_are_read_again_if_they_are_being_replaced(
    trained: Any, tmp_path: Path
) -> None:
    run = trained.copied_to(tmp_path / "copy").run
    want = run.predictions("oof").logits
    file = run.store.root / "tiny_cnn" / "oof.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4] + b"half")
    threading.Timer(0.1, file.write_bytes, args=[whole]).start()
    np.testing.assert_array_equal(run.predictions("oof").logits, want)
    file.write_bytes(whole[:-4] + b"gone")
    with pytest.raises(IntegrityError, match=r"oof\.npy"):
        run.predictions("oof")
