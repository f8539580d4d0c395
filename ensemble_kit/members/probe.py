"""Which precision each member trains in: probed once per machine, network, size and batch.

The answer is kept in the cache folder, so that a machine decides alike twice, and in the member's
specification, so that all of its folds agree.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ensemble_kit.errors import DataError
from ensemble_kit.files import cache_folder, digest_json, read_json, write_json
from ensemble_kit.members.catalogue import cost
from ensemble_kit.members.checkpoint import read_record
from ensemble_kit.members.events import Notice, Watcher
from ensemble_kit.members.job import Job
from ensemble_kit.members.measure import fastest_precision
from ensemble_kit.members.precision import COMPILED, candidates

# Multiply-accumulates of a member's whole training from which a few probing steps pay back.
WORTH_A_PROBE = 3e14
PROBE_BATCH = 16


def with_precision(jobs: Sequence[Job], watcher: Watcher) -> list[Job]:
    """The jobs with `precision="auto"` replaced: by what the member's other folds were trained in,
    by a probe where the work is large, by the fixed rule otherwise.
    """
    chosen: dict[str, str] = {}
    for job in jobs:
        name = job.member.name
        if job.precision == "auto" and name not in chosen:
            chosen[name] = _of_other_folds(job) or _probed(job, jobs, watcher)
    return [dataclasses.replace(j, precision=chosen.get(j.member.name, j.precision)) for j in jobs]


def _of_other_folds(job: Job) -> str | None:
    for k in range(job.folds.n_splits):
        record = read_record(job.run.fold_dir(job.member.name, k))
        if record is not None and record["device"] == str(job.device):
            return str(record["precision"])
    return None


def _probed(job: Job, jobs: Sequence[Job], watcher: Watcher) -> str:
    size, recipe, network = job.tiles.image_size, job.member.recipe, job.member.network
    n_jobs = sum(j.member.name == job.member.name for j in jobs)
    n_images = len(job.manifest) * recipe.epochs
    work = float(cost(network, size).macs) * n_images * n_jobs
    if work < WORTH_A_PROBE or job.member.head:
        return "auto"
    on_card = job.device.type == "cuda"
    batch = recipe.batch_size if on_card else min(recipe.batch_size, PROBE_BATCH)
    known = Known(job.device, "precision")
    key = f"{network} {size} px, batch {batch}"
    if any(name.endswith(COMPILED) for name in candidates(job.device, work)):
        key += f", {n_images} images"  # a compiler pays back in long jobs only
    if key not in known.values:
        name, failed = fastest_precision(
            network, size, batch, job.device, n_images=n_images, work=work
        )
        known.add(key, name)
        watcher(Notice(f"{job.member.name}: {name} trains the fastest here ({key})."))
        for other, reason in failed.items():
            known.add(f"{key}: {other} failed", reason)
            watcher(Notice(f"{job.member.name}: {other} could not be tried here ({reason})."))
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
