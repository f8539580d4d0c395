"""The training precision of each member, measured once per machine, network, size and batch.

It is stored in the cache folder, for later runs on the same machine, and in the member's
specification, so that all of its folds use the same precision.
"""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError, first_few
from ensemble_kit.files import cache_folder, digest_json, read_json, write_json
from ensemble_kit.members.jobs.events import Listener, Notice, ignore_event
from ensemble_kit.members.jobs.fold_files import read_record
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.progress_files import PROGRESS
from ensemble_kit.members.jobs.status import SPEC, read_spec
from ensemble_kit.members.registry import cost
from ensemble_kit.members.training.out_of_memory import release_cached_memory
from ensemble_kit.members.training.precision import choose_precision
from ensemble_kit.members.training.throughput import fastest_precision
from ensemble_kit.run import Run
from ensemble_kit.run.lock import held

# From this number of multiply-accumulates in a member's training, a speed test saves time.
WORTH_A_PROBE = 3e14
PROBE_BATCH = 16


def with_precision(jobs: Sequence[Job], listener: Listener) -> list[Job]:
    """The jobs with `precision="auto"` replaced.

    It becomes the precision of the member's other folds. Without other folds, a speed test decides
    for long trainings, and a fixed rule for short ones.
    """
    chosen: dict[str, str] = {}
    for job in jobs:
        name = job.member.name
        if job.precision == "auto" and name not in chosen:
            n_jobs = sum(other.member.name == name for other in jobs)
            chosen[name] = _agreed(job, n_jobs, listener)
    return [dataclasses.replace(j, precision=chosen.get(j.member.name, j.precision)) for j in jobs]


def with_settled_precision(job: Job, listener: Listener = ignore_event) -> Job:
    """The job with `precision="auto"` replaced, for jobs on several machines.

    The first job of a member chooses the precision and stores it for the others.
    """
    if job.precision != "auto":
        return job
    kind, folder = job.device.type, job.run.member_dir(job.member.name)
    with held(folder, seconds=math.inf):
        known = settled(job.run, job.member.name)
        if kind not in known:
            known[kind] = _agreed(job, job.folds.n_splits, listener)
            about = read_spec(job.run, job.member.name)
            write_checked(folder / SPEC, {**about, "settled": known})
    return dataclasses.replace(job, precision=known[kind])


def trained_in(run: Run, member: str) -> list[tuple[str, str]]:
    """(Kind of device, precision) of a member's folds, finished folds first, then those begun."""
    folder = run.member_dir(member)
    finished = sorted(path.parent for path in folder.glob("fold-*/fold.json"))
    records = [record for one in finished if (record := read_record(one)) is not None]
    found = [(r["device"].partition(":")[0], r["precision"]) for r in records]
    begun = [*folder.glob("fold-*/resume-*.json"), *folder.glob(f"fold-*/{PROGRESS}")]
    if begun and (folder / SPEC).is_file():
        about = read_spec(run, member)
        if about["precision"] != "auto":
            found.append((about["device"].partition(":")[0], about["precision"]))
        found += about.get("settled", {}).items()
    return found


def settled(run: Run, member: str) -> dict[str, str]:
    """Kind of device -> the precision chosen for `auto`, for the member's begun and planned folds."""
    return dict(read_spec(run, member).get("settled", {}))


def refuse_other_precision(job: Job) -> None:
    """Refuse a requested precision that differs from that of the member's other folds.

    Raises
    ------
    DataError
        The member's folds were trained in another precision.
    """
    known = {name for _, name in trained_in(job.run, job.member.name)}
    if job.precision == "auto" or not known or job.precision in known:
        return
    raise DataError(
        f"Precision {job.precision} was requested, but folds in '{job.run.member_dir(job.member.name)}' were trained in {first_few(sorted(known))}",
        "all folds of a member need the same precision",
        "Leave out --precision to continue as before. Or use --retrain to train this member again "
        "(its old folds move to replaced/)",
    )


def _agreed(job: Job, n_jobs: int, listener: Listener) -> str:
    """The precision of the member's other folds; without other folds, the best one on this device."""
    trained = trained_in(job.run, job.member.name)
    planned = settled(job.run, job.member.name).items()
    here = [name for kind, name in [*trained, *planned] if kind == job.device.type]
    if here:
        return here[0]
    chosen = choose_precision(_probed(job, n_jobs, listener), job.device).name
    if trained and trained[0][1] != chosen:
        kind, name = trained[0]
        listener(
            Notice(
                f"{job.member.name}: other folds were trained in {name} on {kind}, these are trained "
                f"in {chosen} on {job.device.type}. Use --precision {name} for one precision."
            )
        )
    return chosen


def _probed(job: Job, n_jobs: int, listener: Listener) -> str:
    size, recipe, network = job.tiles.image_size, job.member.recipe, job.member.network
    n_images = len(job.manifest) * recipe.epochs
    work = float(cost(network, size).macs) * n_images * n_jobs
    if work < WORTH_A_PROBE or job.member.head:
        return "auto"
    on_gpu = job.device.type == "cuda"
    batch = recipe.batch_size if on_gpu else min(recipe.batch_size, PROBE_BATCH)
    known = Known(job.device)
    key = f"{network} {size} px, batch {batch}"
    if key not in known.values:
        name = fastest_precision(network, size, batch, job.device)
        known.add(key, name)
        listener(Notice(f"{job.member.name}: {name} is the fastest precision here ({key})."))
        release_cached_memory(job.device)  # jobs in other processes need the GPU's memory
    return str(known.values[key])


class Known:
    """The fastest precisions of this machine, for this version of torch and number of threads."""

    def __init__(self, device: torch.device) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        machine = [device.type, name, platform.node(), torch.__version__, torch.get_num_threads()]
        self._path: Path = cache_folder() / "precision" / f"{digest_json(machine)[:16]}.json"
        try:
            self.values: dict[str, str] = read_json(self._path)
        except DataError:
            self.values = {}

    def add(self, key: str, value: str) -> None:
        self.values[key] = value
        write_json(self._path, self.values)
