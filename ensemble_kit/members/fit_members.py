"""Train every member on every fold: check the members, run the unfinished jobs, collect the logits.

`ensemble_kit.members.jobs.run_job` trains one job.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.files import cache_folder
from ensemble_kit.folds import Folds
from ensemble_kit.folds.fold_key import LeftOut
from ensemble_kit.images.digests import with_digests
from ensemble_kit.images.tiles.build import build_tile_sets
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.choose_precision import refuse_other_precision, with_precision
from ensemble_kit.members.jobs.collect import collect
from ensemble_kit.members.jobs.engine import Engine, RemoteEngine, error_of_jobs, in_process
from ensemble_kit.members.jobs.events import (
    JobFailed,
    JobSkipped,
    Listener,
    Notice,
    TilesProgress,
    ignore_event,
)
from ensemble_kit.members.jobs.job import CROP, Job
from ensemble_kit.members.jobs.job_spec import update_cost, write_spec
from ensemble_kit.members.jobs.nested_folds import pairs_to_train
from ensemble_kit.members.jobs.pooled_features import lacks_features
from ensemble_kit.members.jobs.progress_files import forget_failure
from ensemble_kit.members.jobs.tracking import TensorBoard, both
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.pretrained import require_init_checkpoints
from ensemble_kit.members.preflight import check_members
from ensemble_kit.members.training.precision import choose_device
from ensemble_kit.run import Run
from ensemble_kit.run.lock import locks_work

# Placeholder device of jobs that run on other machines.
REMOTE_DEVICE = torch.device("meta")
NO_LOCKS = (
    "The disk of '{}' does not support file locks. Heartbeat files replace them: a host that dies "
    "is noticed after half a minute."
)


def fit_members(
    members: Sequence[Member],
    train: Manifest,
    folds: Folds,
    run: Run,
    *,
    test: Manifest | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    retrain: bool = False,
    listener: Listener = ignore_event,
    cache: Path | None = None,
    engine: Engine | None = None,
    shard: tuple[int, int] | None = None,
    nested: bool = False,
    keep_features: bool = False,
    tensorboard: bool = True,
) -> None:
    """Train each member on each fold and store all out-of-fold and test logits in `run`.

    Finished (member, fold) jobs are skipped, so the same call resumes an interrupted run.

    Parameters
    ----------
    members : sequence of Member
    train, test : Manifest
        Training rows and test rows. `train` can hold both if its `split` column marks them.
    folds : Folds
        The folds of the training rows.
    run : Run
    device : str
        `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
    precision : str
        Training precision: `auto`, `fp32`, `bf16`, `fp16`. All folds of a member use the same one:
        `auto` is the precision of the folds already begun. Stored logits are computed in fp32.
    seed : int
        The same seed, data and machine give the same logits.
    config : mapping, optional
        The resolved experiment; stored as the run's `config.toml`.
    retrain : bool
        Train members with changed settings again and move their old folds to `replaced/`.
        Otherwise changed settings are an error.
    listener : callable
        Receives the events of `ensemble_kit.members.jobs.events`.
    cache : path, optional
        Folder of decoded tiles. Default: `ENSEMBLE_KIT_CACHE`, else the user's cache folder.
    engine : callable, optional
        Runs the waiting jobs and returns the failed ones; see `ensemble_kit.launch`. Default: one
        job after the other in this process. A remote engine resolves `device` on its machines.
    shard : (int, int), optional
        (i, n): run only part i of n of the jobs; i starts at 1. Several machines that share the
        folder can then work on one run.
    nested : bool
        Train each member also without each pair of folds: K (K - 1) / 2 more jobs.
        `run.nested_predictions()` and `stack_run(nested=True)` need them.
    keep_features : bool
        Store each network's pooled features beside its logits; `FeatureMLP` needs them. Finished
        folds get their features from the stored networks.
    tensorboard : bool
        Write TensorBoard events beside `history.csv`.

    Raises
    ------
    DataError
        Invalid data or settings, or a run folder of other data or settings.
    EnvironmentFault
        A missing device, missing pretrained weights, or a full disk.
    JobsFailedError
        Some jobs failed; all others are finished and stored.
    RunLockedError
        Another process works on this run.
    """
    refuse_bad_members(members)
    rounds: list[Sequence[LeftOut]] = [
        range(folds.n_splits),
        pairs_to_train(members, folds.n_splits) if nested else [],
    ]
    manifest = train.joined(test) if test is not None and len(test) else train
    for text in check_members(members, manifest):
        listener(Notice(text))
    if "sha256" not in manifest.table:
        manifest = with_digests(manifest)
    # A remote engine resolves `auto` on its own machines.
    is_remote = isinstance(engine, RemoteEngine)
    job_device = REMOTE_DEVICE if is_remote else choose_device(device)
    with contextlib.ExitStack() as stack:
        if tensorboard and not is_remote:
            curves = TensorBoard(run.path / "tensorboard", listener)
            listener = both(listener, stack.enter_context(curves))
        with run.locked(seconds=0 if shard is None else 600):
            if not locks_work(run.path):
                listener(Notice(NO_LOCKS.format(run.path)))
            run.begin(manifest, folds, config or {})
            jobs = _plan(
                members, rounds, manifest, folds, run, job_device, precision, seed, keep_features,
                listener, cache,
            )  # fmt: skip
            waiting = _unfinished(jobs, run, retrain, listener)
            require_init_checkpoints([j.member for j in waiting if not lacks_features(j)])
            waiting = waiting if is_remote else with_precision(waiting, listener)
            if config is not None:
                run.keep_config(config)
            run.remember([m.name for m in members])
            requested_device = device if is_remote else None
            _write_specs(
                jobs, waiting, cache, nested=nested, device=requested_device, requested=precision
            )
            if shard is None:
                failures = _run_and_collect(jobs, waiting, engine or in_process, listener)
        if shard is not None:
            own_jobs, left = (_shard(some, jobs, *shard) for some in (jobs, waiting))
            failures = _run_and_collect(own_jobs, left, engine or in_process, listener)
    if failures:
        raise error_of_jobs(failures, len(jobs))


def _write_specs(
    jobs: Sequence[Job],
    waiting: Sequence[Job],
    cache: Path | None,
    *,
    nested: bool,
    device: str | None,
    requested: str,
) -> None:
    for job in _one_per_member(jobs):
        update_cost(job)
    for job in _one_per_member(waiting):
        write_spec(job, cache, nested=nested, device=device, requested=requested)


def _one_per_member(jobs: Sequence[Job]) -> list[Job]:
    return list({job.member.name: job for job in jobs}.values())


def _run_and_collect(
    jobs: Sequence[Job], waiting: Sequence[Job], engine: Engine, listener: Listener
) -> list[JobFailed]:
    left = {_key(job) for job in waiting}
    for job in jobs:
        if _key(job) in left:
            forget_failure(job.folder)
        else:
            listener(JobSkipped(job.member.name, job.fold))
    failures = engine(waiting, listener) if waiting else []
    for job in _one_per_member(jobs):
        collect(job)
    return failures


def _key(job: Job) -> tuple[str, LeftOut]:
    return job.member.name, job.fold


def _shard(some: Sequence[Job], jobs: Sequence[Job], number: int, n_shards: int) -> list[Job]:
    if not 1 <= number <= n_shards:
        raise UsageError(
            f"Invalid shard {number}/{n_shards}",
            "a shard is I/N with I from 1 to N",
            "Use e.g. --shard 1/4",
        )
    place = {_key(job): i for i, job in enumerate(jobs)}
    return [j for j in some if place[_key(j)] % n_shards == number - 1]


def refuse_bad_members(members: Sequence[Member]) -> None:
    """Refuse an empty list of members, and two members with the same name."""
    names = [m.name for m in members]
    if not names:
        raise UsageError(
            "No member was given", "at least one is needed", "Name some: --members resnet18"
        )
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UsageError(
            f"Two members are called {first_few(twice)}",
            "each member needs its own name",
            f"Give each a name: {twice[0]}:name=other, or Member(..., name='other')",
        )


def _plan(
    members: Sequence[Member],
    rounds: Sequence[Sequence[LeftOut]],
    manifest: Manifest,
    folds: Folds,
    run: Run,
    device: torch.device,
    precision: str,
    seed: int,
    keep_features: bool,
    listener: Listener,
    cache: Path | None,
) -> list[Job]:
    specs = {spec for m in members for spec in (m.tile_spec, m.eval_spec)}
    largest = max(spec.image_size for spec in specs)
    tiles = build_tile_sets(
        manifest,
        list(specs),
        cache_dir=cache or cache_folder(),
        crop=CROP,
        progress=lambda done, total: listener(TilesProgress(done, total, largest)),
    )
    return [
        Job(
            run, m, k, manifest, folds, tiles[m.tile_spec], device, precision, seed,
            None if m.eval_spec == m.tile_spec else tiles[m.eval_spec], keep_features,
        )
        for left_out in rounds
        for m in members
        for k in left_out
    ]  # fmt: skip


def _unfinished(jobs: Sequence[Job], run: Run, retrain: bool, listener: Listener) -> list[Job]:
    of_member: dict[str, list[Job]] = {}
    for job in jobs:
        of_member.setdefault(job.member.name, []).append(job)
    waiting = {
        _key(job)
        for own in of_member.values()
        for job, done in zip(own, _are_done(own, run, retrain, listener), strict=True)
        if not done
    }
    return [job for job in jobs if _key(job) in waiting]


def _are_done(own: Sequence[Job], run: Run, retrain: bool, listener: Listener) -> list[bool]:
    """Whether each job of one member is done; all False if its old folds were moved away."""
    name = own[0].member.name
    try:
        refuse_other_precision(own[0])
        return [job.finished() and not lacks_features(job) for job in own]
    except DataError as changed:
        differing = [job for job in own if job.changes()]
        tuned = bool(differing) and all(job.differs_by_tuning_alone() for job in differing)
        if not (retrain or tuned):
            raise
        moved = run.set_aside(name)
        listener(Notice(f"{name}: {changed.problem}. Its old folds are now in {moved}."))
        return [False] * len(own)
