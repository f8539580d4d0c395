"""Gathering a member's finished folds into the run's prediction store.

Joins files; a fold that is not finished is NaN, never zero.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from filelock import FileLock

from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.files import read_json, write_json
from ensemble_kit.members import checkpoint
from ensemble_kit.members.job import SPEC, Job, stamps
from ensemble_kit.predictions.store import MemberLogits


def collect(job: Job) -> None:
    """Gather the finished folds of a job's member into the run's prediction store."""
    # Read under the lock: what another process has finished meanwhile must not be lost.
    with FileLock(job.run.member_dir(job.member.name) / ".collect.lock"):
        folders = {k: job.run.fold_dir(job.member.name, k) for k in range(job.folds.n_splits)}
        records = {k: checkpoint.read_record(folder) for k, folder in folders.items()}
        done = {k: record for k, record in records.items() if record is not None}
        about = {
            "manifest": job.manifest.digest,
            "folds": job.folds.digest,
            "member": job.member.digest(job.tiles.image_size),
            "folds_done": sorted(done),
            "logits": {str(k): record["files"]["logits-oof.npy"] for k, record in done.items()},
            "stamps": stamps(job.member),
        }
        if done and not _is_collected(job, about):
            _write_collected(job, done, about)


def _is_collected(job: Job, about: Mapping[str, Any]) -> bool:
    try:
        return job.run.store.read(job.member.name).about == about
    except (DataError, IntegrityError):
        return False


def _write_collected(
    job: Job, done: Mapping[int, Mapping[str, Any]], about: dict[str, Any]
) -> None:
    train, test = job.manifest.part("train"), job.manifest.part("test")
    fold = job.folds.of(train)
    oof = np.full((len(train), job.manifest.n_classes), np.nan, dtype=np.float32)
    tests: dict[int, Any] = {}
    for k, record in done.items():
        folder = job.run.fold_dir(job.member.name, k)
        checkpoint.check_files(folder, record)
        kept, tested = checkpoint.read_logits(folder)
        oof[fold == k] = kept
        if len(test):
            tests[k] = tested
    logits = MemberLogits(
        oof=oof,
        test=tests,
        train_ids=tuple(train.sample_ids.tolist()),
        test_ids=tuple(test.sample_ids.tolist()),
        class_names=job.manifest.class_names,
        about=about,
    )
    job.run.store.write(job.member.name, logits)
    _note_speed(job, done)


def _note_speed(job: Job, done: Mapping[int, Mapping[str, Any]]) -> None:
    """Write beside the member's other costs what predicting an image took: the median of its folds."""
    path = job.run.member_dir(job.member.name) / SPEC
    times = [record["ms_per_image"] for record in done.values() if "ms_per_image" in record]
    if times and path.is_file():
        write_json(path, {**read_json(path), "ms_per_image": statistics.median(times)})
