"""Which precision each member trains in: probed once per machine, network, size and batch.

The answer is kept in the cache folder, so that a machine decides alike twice, and in the member's
specification, so that all of its folds agree.
"""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from ensemble_kit.members.training.out_of_memory import give_back
from ensemble_kit.members.training.precision import choose_precision
from ensemble_kit.members.training.throughput import fastest_precision
from ensemble_kit.run import Run
from ensemble_kit.run.lock import held

# Multiply-accumulates of a member's whole training from which a few probing steps pay back.
WORTH_A_PROBE = 3e14
PROBE_BATCH = 16


def with_precision(jobs: Sequence[Job], listener: Listener) -> list[Job]:
    """The jobs with `precision="auto"` replaced: by what the member's other folds were trained in,
    by a probe where the work is large, by the fixed rule otherwise.
    """
    chosen: dict[str, str] = {}
    for job in jobs:
        name = job.member.name
        if job.precision == "auto" and name not in chosen:
            n_jobs = sum(other.member.name == name for other in jobs)
            chosen[name] = _agreed(job, n_jobs, listener)
    return [dataclasses.replace(j, precision=chosen.get(j.member.name, j.precision)) for j in jobs]


def with_settled_precision(job: Job, listener: Listener = ignore_event) -> Job:
    """The job with `precision="auto"` replaced by what the first job of its member settled on.

    For jobs that other machines run: whichever is the first decides, and notes it for the others.
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
    """Kinds of devices and the precisions that a member's folds were trained in.

    Finished ones come first; of those that are begun the plan knows it.
    """
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
    """Kind of device -> what `auto` was found to be for the member's folds, begun or only planned."""
    return dict(read_spec(run, member).get("settled", {}))


def refuse_other_precision(job: Job) -> None:
    """Refuse a precision that was asked for where the member's folds were trained in another.

    Raises
    ------
    DataError
        The folds of one member would differ.
    """
    known = {name for _, name in trained_in(job.run, job.member.name)}
    if job.precision == "auto" or not known or job.precision in known:
        return
    raise DataError(
        f"Precision {job.precision} was asked for, but folds in '{job.run.member_dir(job.member.name)}' were trained in {first_few(sorted(known))}",
        "all folds of a member need the same precision",
        "Leave out --precision to continue as before. Or use --retrain to train this member again "
        "(its old folds move to replaced/)",
    )


def _agreed(job: Job, n_jobs: int, listener: Listener) -> str:
    """The precision of the member's other folds; where there are none, what pays here."""
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
                f"{job.member.name}: other folds were trained in {name} on {kind}, these are in "
                f"{chosen} on {job.device.type}. Use --precision {name} for one."
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
    known = Known(job.device, "precision")
    key = f"{network} {size} px, batch {batch}"
    if key not in known.values:
        name = fastest_precision(network, size, batch, job.device)
        known.add(key, name)
        listener(Notice(f"{job.member.name}: {name} trains the fastest here ({key})."))
        give_back(job.device)  # jobs in other processes need the card's memory
    return str(known.values[key])


class Known:
    """What was probed before on this machine, with this torch and so many threads.

    Parameters
    ----------
    what : str
        The question; answers to different ones lie in files of their own.
    """

    def __init__(self, device: torch.device, what: str) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        machine = [device.type, name, platform.node(), torch.__version__, torch.get_num_threads()]
        self._path: Path = cache_folder() / what / f"{digest_json(machine)[:16]}.json"
        try:
            self.values: dict[str, Any] = read_json(self._path)
        except DataError:
            self.values = {}

    def add(self, key: str, value: Any) -> None:
        self.values[key] = value
        write_json(self._path, self.values)
