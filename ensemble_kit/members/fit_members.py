"""Every member on every fold: preflight, jobs in order, finished ones skipped, logits collected.

Starts jobs and gathers their files; how one job trains is its own affair.
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

# Where jobs of a remote engine run: nowhere here.
ELSEWHERE = torch.device("meta")
NO_LOCKS = (
    "The disk of '{}' knows no file locks: a claim that beats holds others off in their place, and "
    "of a host that dies it is known after half a minute only."
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
    """Train each member on each fold and keep every out-of-fold and test logit in `run`.

    Finished (member, fold) jobs are skipped, so the same call goes on where it was cut off.

    Parameters
    ----------
    members : sequence of Member
    train, test : Manifest
        Training rows, and rows that no fold trains on; `train` may hold both, told by `split`.
    folds : Folds
        Of the training rows.
    run : Run
    device : str
        `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
    precision : str
        `auto`, `fp32`, `bf16`, `fp16`; kept logits are always computed in fp32. The folds of a
        member are trained in one: `auto` is that of those that are finished or begun.
    seed : int
        Same seed, data and machine: same logits.
    config : mapping, optional
        The experiment as it was resolved; kept as the run's `config.toml`.
    retrain : bool
        Set members aside whose settings changed, and train them anew, instead of refusing.
    listener : callable
        Receives the events of `ensemble_kit.members.jobs.events`.
    cache : path, optional
        Where decoded tiles are kept; `ENSEMBLE_KIT_CACHE` or the user's cache folder otherwise.
    engine : callable, optional
        Runs the waiting jobs and returns those that failed: one after the other in this process,
        or one of `ensemble_kit.launch`. With one that runs them on other machines, `device` is
        looked for there.
    shard : (int, int), optional
        Run only the jobs of part i of n, from 1: several processes, on several machines that
        share the folder, may then work on one run.
    nested : bool
        Train each member without each pair of folds too, K (K - 1) / 2 jobs more: what
        `run.nested_predictions()` and `stack_run(nested=True)` need.
    keep_features : bool
        Keep each network's pooled features beside its logits: what `FeatureMLP` needs. The logits
        are the same; folds that are finished get theirs from the stored networks.
    tensorboard : bool
        Write TensorBoard events beside `history.csv`.

    Raises
    ------
    DataError
        Bad data or settings, or a run folder that was made from others.
    EnvironmentFault
        No such device, no pretrained weights, no room on the disk.
    JobsFailedError
        Some jobs failed; all others are finished and kept.
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
    # The devices of other machines are not known here: `auto` is resolved there.
    elsewhere = isinstance(engine, RemoteEngine)
    where = ELSEWHERE if elsewhere else choose_device(device)
    with contextlib.ExitStack() as stack:
        if tensorboard and not elsewhere:
            curves = TensorBoard(run.path / "tensorboard", listener)
            listener = both(listener, stack.enter_context(curves))
        with run.locked(seconds=0 if shard is None else 600):
            if not locks_work(run.path):
                listener(Notice(NO_LOCKS.format(run.path)))
            run.begin(manifest, folds, config or {})
            jobs = _plan(
                members, rounds, manifest, folds, run, where, precision, seed, keep_features,
                listener, cache,
            )  # fmt: skip
            waiting = _unfinished(jobs, run, retrain, listener)
            require_init_checkpoints([j.member for j in waiting if not lacks_features(j)])
            waiting = waiting if elsewhere else with_precision(waiting, listener)
            if config is not None:
                run.keep_config(config)
            run.remember([m.name for m in members])
            requested_device = device if elsewhere else None
            _write_specs(
                jobs, waiting, cache, nested=nested, device=requested_device, requested=precision
            )
            if shard is None:
                failures = _run_and_collect(jobs, waiting, engine or in_process, listener)
        if shard is not None:
            ours, left = (_shard(some, jobs, *shard) for some in (jobs, waiting))
            failures = _run_and_collect(ours, left, engine or in_process, listener)
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
    """What tells a job of one run from the others."""
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
    """Refuse what no run can train: no member, or two of one name."""
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
        for job, done in zip(own, _which_are_done(own, run, retrain, listener), strict=True)
        if not done
    }
    return [job for job in jobs if _key(job) in waiting]


def _which_are_done(own: Sequence[Job], run: Run, retrain: bool, listener: Listener) -> list[bool]:
    """Of one member's jobs; none once its folds were set aside for others."""
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
