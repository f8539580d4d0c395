"""Collect a member's finished folds in the run's prediction store; unfinished folds are NaN."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.folds.fold_key import LeftOut, folds_in, pairs_of
from ensemble_kit.members.jobs import fold_files as checkpoint
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.status import SPEC, read_spec
from ensemble_kit.members.naming import stored_name
from ensemble_kit.predictions.store import MemberFeatures, MemberLogits
from ensemble_kit.run.lock import held


def collect(job: Job) -> None:
    """Gather the finished folds of a job's member into the run's prediction store."""
    # Read under the lock: folds that another process finishes meanwhile must not be lost.
    with held(job.run.member_dir(job.member.name), seconds=math.inf):
        done = _finished(job, range(job.folds.n_splits))
        pairs = _finished(job, pairs_of(job.folds.n_splits) if job.folds.n_splits > 2 else [])
        for weights in ("", *job.member.recipe.extra_checkpoints):
            about = {
                "manifest": job.manifest.digest,
                "folds": job.folds.digest,
                "member": job.member.digest(job.tiles.image_size),
                "folds_done": sorted(done),
                "logits": {
                    str(k): record["files"][(Path(weights) / "logits-oof.npy").as_posix()]
                    for k, record in [*done.items(), *pairs.items()]
                },
                "stamps": _caveats(done),
            }
            if pairs:
                about["pairs_done"] = list(pairs)
            if featured := _with_features(done, weights):
                about["features"] = featured
            name = stored_name(job.member.name, weights)
            if done and not _is_collected(job, name, about):
                _write_collected(job, name, done, pairs, about)
                _note_speed(job, done)


def _finished(job: Job, left_out: Iterable[LeftOut]) -> dict[LeftOut, dict[str, Any]]:
    """The records of the member's finished jobs that have the settings of this job.

    Another process may have finished jobs with older settings; a member has one recipe only.
    """
    records = {k: checkpoint.read_record(job.run.fold_dir(job.member.name, k)) for k in left_out}
    return {
        k: record
        for k, record in records.items()
        if record is not None
        and not checkpoint.changed_keys(record["made_of"], {**job.made_of, "fold": k})
    }


def _caveats(done: Mapping[LeftOut, Mapping[str, Any]]) -> list[str]:
    """The caveats of all folds, without duplicates."""
    caveats = [caveat for record in done.values() for caveat in record.get("stamps", [])]
    return list(dict.fromkeys(caveats))


def _is_collected(job: Job, name: str, about: Mapping[str, Any]) -> bool:
    try:
        return job.run.store.read(name).about == about
    except (DataError, IntegrityError):
        return False


def _write_collected(
    job: Job,
    name: str,
    done: Mapping[LeftOut, Mapping[str, Any]],
    pairs: Mapping[LeftOut, Mapping[str, Any]],
    about: dict[str, Any],
) -> None:
    train, test = job.manifest.part("train"), job.manifest.part("test")
    fold = job.folds.of(train)
    oof = np.full((len(train), job.manifest.n_classes), np.nan, dtype=np.float32)
    tests: dict[int, Any] = {}
    for k, record in done.items():
        held_out, tested = _checked_logits(job, name, k, record)
        oof[fold == k] = held_out
        if len(test):
            tests[int(k)] = tested
    logits = MemberLogits(
        oof=oof,
        test=tests,
        train_ids=tuple(train.sample_ids.tolist()),
        test_ids=tuple(test.sample_ids.tolist()),
        class_names=job.manifest.class_names,
        about=about,
        nested=_nested(job, name, pairs, fold) if pairs else None,
        features=_features(job, name, map(int, about["features"]), fold)
        if "features" in about
        else None,
    )
    job.run.store.write(name, logits)


def _nested(
    job: Job,
    name: str,
    pairs: Mapping[LeftOut, Mapping[str, Any]],
    fold: npt.NDArray[np.int64],
) -> Array:
    """Logits by the other left-out fold, shape (n_folds, n_train, n_classes); NaN if missing."""
    shape = (job.folds.n_splits, len(fold), job.manifest.n_classes)
    out = np.full(shape, np.nan, dtype=np.float32)
    for pair, record in pairs.items():
        k, j = folds_in(pair)
        held_out, _ = _checked_logits(job, name, pair, record)
        of_held_out = fold[np.isin(fold, (k, j))]
        out[j, fold == k] = held_out[of_held_out == k]
        out[k, fold == j] = held_out[of_held_out == j]
    return out


def _with_features(done: Mapping[LeftOut, Mapping[str, Any]], weights: str) -> dict[str, str]:
    """Fold -> digest of its features, for finished folds with features."""
    name = (Path(weights) / checkpoint.FEATURES).as_posix()
    return {str(k): record["files"][name] for k, record in done.items() if name in record["files"]}


def _features(
    job: Job, name: str, folds: Iterable[int], fold: npt.NDArray[np.int64]
) -> MemberFeatures:
    """The features of `folds`; their files were checked with the logits."""
    read = {k: checkpoint.read_features(job.run.fold_dir(name, k)) for k in folds}
    width = {held_out.shape[1] for held_out, _ in read.values()}.pop()
    oof = np.full((len(fold), width), np.nan, dtype=np.float32)
    for k, (held_out, _) in read.items():
        oof[fold == k] = held_out
    has_test = bool(len(job.manifest.part("test")))
    return MemberFeatures(oof, {k: tested for k, (_, tested) in read.items() if has_test})


def _checked_logits(
    job: Job, name: str, left_out: LeftOut, record: Mapping[str, Any]
) -> tuple[Array, Array]:
    checkpoint.check_files(job.run.fold_dir(job.member.name, left_out), record)
    return checkpoint.read_logits(job.run.fold_dir(name, left_out))


def _note_speed(job: Job, done: Mapping[LeftOut, Mapping[str, Any]]) -> None:
    """Store the time of a prediction per image, the median over the folds, in the member's spec."""
    path = job.run.member_dir(job.member.name) / SPEC
    times = [record["ms_per_image"] for record in done.values() if "ms_per_image" in record]
    if times and path.is_file():
        about = read_spec(job.run, job.member.name)
        write_checked(path, {**about, "ms_per_image": statistics.median(times)})
