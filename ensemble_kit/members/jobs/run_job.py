"""Run a job: train a network, predict the held-out fold and the test rows, store the results.

An interrupted job resumes after its last finished epoch.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ensemble_kit.errors import IntegrityError
from ensemble_kit.faults import as_machine_fault
from ensemble_kit.members.jobs import fold_files as checkpoint
from ensemble_kit.members.jobs.events import (
    EpochEnded,
    JobFinished,
    JobSkipped,
    JobStarted,
    Listener,
    Notice,
    ignore_event,
)
from ensemble_kit.members.jobs.init_leakage import in_another_color, seen_before
from ensemble_kit.members.jobs.input_config import own_input
from ensemble_kit.members.jobs.job import CROP, TRAINER, Job
from ensemble_kit.members.jobs.job_rows import Parts
from ensemble_kit.members.jobs.peak_memory import peak_mib
from ensemble_kit.members.jobs.pooled_features import (
    features_by,
    features_of_finished,
    lacks_features,
    wants_features,
)
from ensemble_kit.members.jobs.progress_files import (
    claimed,
    forget_failure,
    note_failure,
    note_progress,
)
from ensemble_kit.members.jobs.resume import load_resume, save_resume
from ensemble_kit.members.training.curve_warnings import guard
from ensemble_kit.members.training.fit import Fit
from ensemble_kit.members.training.state import State, Training
from ensemble_kit.members.training.threads import settle_threads, threads_restored
from ensemble_kit.run import versions


def run_job(job: Job, listener: Listener = ignore_event) -> None:
    """Train one member on one fold, predict its held-out fold and the test rows, and store the results.

    On the CPU, the results of a resumed job and of an uninterrupted one are the same, bit for bit.

    Raises
    ------
    RunLockedError
        Another process runs this job.
    JobsFailedError, EnvironmentFault
        The job failed; the message says why.
    """
    with as_machine_fault(job.folder / "fold.json"), claimed(job.folder), threads_restored():
        if job.finished():
            if lacks_features(job):
                checkpoint.add_features(job.folder, features_of_finished(job))
                listener(JobSkipped(job.member.name, job.fold))
            return
        forget_failure(job.folder)
        try:
            with as_machine_fault(job.folder / "fold.json"):
                _run_locked(job, listener)
        except Exception as error:
            note_failure(job.folder, error)
            raise


def _run_locked(job: Job, listener: Listener) -> None:
    began, notices = time.perf_counter(), list[str]()
    member, parts = job.member, job.parts()

    def notice(text: str) -> None:
        notices.append(text)
        listener(Notice(f"{member.name} fold {job.fold}: {text}"))

    state = load_resume(job.folder, job.begun_of, notice)
    settle_threads(job, state, listener)
    earlier = _earlier(state, notices)
    fit = Fit.start(
        member,
        job.tiles,
        job.manifest.n_classes,
        device=job.device,
        precision=job.precision,
        seed=job.model_seed,
        eval_tiles=job.eval_tiles,
        state=state,
    )
    epochs, first = member.recipe.epochs, fit.training.epoch
    listener(JobStarted(member.name, job.fold, epochs, first, str(job.device), fit.precision.name))
    note_progress(job.folder, first, first, epochs, began)
    known = [*_inherited(job), *in_another_color(member.weights, member.color), *_lacking(parts)]
    for text in known if first == 0 else []:
        notice(f"Caveat: {text}")

    def after_epoch(training: Training) -> None:
        if training.epoch < epochs:
            so_far = {
                "said": list(notices),
                "seconds": earlier + time.perf_counter() - began,
                "threads": torch.get_num_threads(),
            }
            save_resume(job.folder, training.state() | so_far, job.begun_of)
        checkpoint.write_history(job.folder, _history(training, parts))
        note_progress(job.folder, first, training.epoch, epochs, began)
        last = training.history[-1]
        listener(
            EpochEnded(member.name, job.fold, epochs=epochs, val_on=parts.validation_name, **last)
        )

    fit.run(parts.fit, after_epoch, notice)
    chosen, labels = fit.training.chosen_epoch, parts.fit.validation_labels
    for text in guard(fit.training.history, labels, member.recipe, chosen):
        notice(text)
    seconds = earlier + time.perf_counter() - began
    _store(job, fit, parts, seconds, notices)
    listener(JobFinished(member.name, job.fold, seconds, chosen))


def _history(training: Training, parts: Parts) -> list[dict[str, Any]]:
    """The epochs so far, each with the name of the rows of its validation metrics."""
    return [{**row, "val_on": parts.validation_name} for row in training.history]


def _earlier(state: State | None, notices: list[str]) -> float:
    """Seconds of earlier processes up to this state; their notices are prepended to `notices`."""
    if state is None:
        return 0.0
    notices[:0] = state.get("said", [])
    return float(state.get("seconds", 0.0))


def _store(job: Job, fit: Fit, parts: Parts, seconds: float, notices: list[str]) -> None:
    began = time.perf_counter()
    oof, test = fit.logits(parts.held_out), fit.logits(parts.test)
    predicting = time.perf_counter() - began
    _refuse_nan(job, oof, test)
    features = {"": features_by(fit, parts)} if wants_features(job) else {}
    _write_network(job, fit, job.folder)
    further = {}
    for name in job.member.recipe.extra_checkpoints:
        with fit.holding(name):
            further[name] = fit.logits(parts.held_out), fit.logits(parts.test)
            _refuse_nan(job, *further[name])
            if features:
                features[name] = features_by(fit, parts)
            _write_network(job, fit, job.folder / name)
    checkpoint.write_fold(
        job.folder,
        oof=oof,
        test=test,
        further=further,
        features=features,
        history=_history(fit.training, parts),
        recipe=job.member.recipe.model_dump(mode="json"),
        record=_record(job, fit, parts, seconds, predicting, notices),
        made_of=job.made_of,
    )


def _record(
    job: Job, fit: Fit, parts: Parts, seconds: float, predicting: float, notices: list[str]
) -> dict[str, Any]:
    """The content of `fold.json` except the digests."""
    return {
        "member": job.member.name,
        "fold": job.fold,
        "class_names": list(job.manifest.class_names),
        "rows": {
            "train": len(parts.fit.train),
            "kept": len(parts.held_out),
            "test": len(parts.test),
        },
        "trainer": TRAINER,
        "chosen_epoch": fit.training.chosen_epoch,
        "seconds": round(seconds, 3),
        "ms_per_image": round(1000 * predicting / (len(parts.held_out) + len(parts.test)), 4),
        "memory_mib": peak_mib(job.device),
        "device": str(job.device),
        "threads": torch.get_num_threads(),
        "precision": fit.precision.name,
        "micro_batches": fit.training.micro_batches,
        "stamps": caveats_of(job, parts),
        "said": notices,
        "versions": versions(),
    }


def caveats_of(job: Job, parts: Parts) -> list[str]:
    """The caveats about the metrics of this fold's network."""
    member = job.member
    caveats = [*_inherited(job), *_lacking(parts)]
    if member.recipe.select_on == "held-out-fold":
        caveats.append(
            "its epoch was chosen on the held-out fold, so its out-of-fold metrics are optimistic."
        )
    if member.tuned:
        caveats.append(
            "its recipe was tuned on these folds, so its out-of-fold metrics are optimistic."
        )
    return caveats


def _inherited(job: Job) -> list[str]:
    return seen_before(job.member.weights, job.manifest, job.folds, job.fold)


def _lacking(parts: Parts) -> list[str]:
    return [f"its epoch is chosen on validation rows with {what}." for what in parts.lacks]


def _write_network(job: Job, fit: Fit, folder: Path) -> None:
    checkpoint.write_network(
        folder,
        fit.model,
        class_names=job.manifest.class_names,
        input_config=fit.input_config(CROP),
        own_input=own_input(job),
        published=job.member.starts_published,
    )


def _refuse_nan(job: Job, *tables: npt.NDArray[np.float32]) -> None:
    bad = sum(int((~np.isfinite(table)).any(axis=1).sum()) for table in tables)
    if bad:
        raise IntegrityError(
            f"{bad} rows of logits of {job.member.name} fold {job.fold} are not finite",
            "stored logits must be finite numbers",
            "Lower learning_rate, then run the same command",
        )
