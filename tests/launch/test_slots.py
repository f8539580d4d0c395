"""The number of slots follows cores and memory; the memory of a job is measured."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import psutil
import pytest
import torch

from ensemble_kit import memory as host
from ensemble_kit.checked import write_checked
from ensemble_kit.launch import local, memory
from ensemble_kit.launch.local import CHOICE, LocalEngine
from ensemble_kit.launch.pool import least_used
from ensemble_kit.launch.slots import (
    MARGIN,
    MOST_PER_GPU,
    Machine,
    Peak,
    first_slots,
    most_slots,
    slots_by_memory,
)
from ensemble_kit.members.jobs.events import Event, JobStarted, Notice
from ensemble_kit.members.jobs.job_spec import write_spec

GIB = 2**30


@pytest.mark.parametrize(
    ("cores", "free", "jobs", "want"),
    [(2, 24, 10, 2), (8, 10, 20, 3), (8, 1, 20, 1), (8, 100, 3, 3), (1, 100, 9, 1)],
)
def test_the_first_number_of_slots_follows_cores_and_memory(
    cores: int, free: int, jobs: int, want: int
) -> None:
    assert first_slots(Machine(cores, free * GIB), jobs) == want


def test_a_large_network_has_fewer_first_slots() -> None:
    machine = Machine(cores=16, host_free=64 * GIB)
    small, large = (first_slots(machine, 50, macs * 32) for macs in (0.4e9, 4.5e9))
    assert (small, large) == (16, 4)


@pytest.mark.parametrize("gib", [0.5, 1, 2.5, 7, 40])
def test_jobs_with_a_measured_peak_fit_into_the_memory(gib: float) -> None:
    machine = Machine(cores=64, host_free=32 * GIB)
    slots = slots_by_memory(Peak(host=int(gib * GIB)), machine, n_jobs=100)
    assert slots == 1 or slots * gib * GIB * MARGIN <= machine.host_free
    assert slots == 64 or (slots + 1) * gib * GIB * MARGIN > machine.host_free


def test_gpus_get_as_many_jobs_as_fit_up_to_a_limit() -> None:
    machine = Machine(cores=64, host_free=500 * GIB, n_gpus=2)
    tight = Peak(host=GIB, gpu=10 * GIB, gpu_total=24 * GIB)
    assert slots_by_memory(tight, machine, n_jobs=55) == 4
    roomy = Peak(host=GIB, gpu=2 * GIB, gpu_total=140 * GIB)
    assert slots_by_memory(roomy, machine, n_jobs=55) == 2 * MOST_PER_GPU
    assert slots_by_memory(roomy, Machine(3, 500 * GIB, 2), n_jobs=55) == 3
    assert first_slots(machine, 55) == 2
    assert most_slots(machine, 1) == 1


def test_the_larger_peak_counts_with_the_first_total_of_the_gpu() -> None:
    first = Peak(host=2, gpu=10, gpu_total=100)
    later = Peak(host=3, gpu=20, gpu_total=40)
    assert first.larger(later) == Peak(host=3, gpu=20, gpu_total=100)
    assert first.larger(Peak(host=1)) == first


def test_workers_are_distributed_over_the_gpus() -> None:
    assert least_used([], []) == ""
    assert [least_used(["4", "6"], t) for t in ([], ["4"], ["4", "6"], ["4", "6", "4"])] == [
        "4", "6", "4", "6",
    ]  # fmt: skip


def test_the_peak_is_the_memory_of_the_process() -> None:
    code = (
        "from ensemble_kit.launch.memory import host_peak\n"
        "before = host_peak(); held = bytearray(200 * 2**20); del held\n"
        "print(host_peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 199 <= int(done.stdout) / 2**20 <= 210


def test_the_memory_limit_of_a_container_is_used(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    machine = host.host_free()
    assert machine > GIB / 4
    (tmp_path / "memory.max").write_text("100000000\n")
    (tmp_path / "memory.current").write_text("40000000\n")
    assert host.host_free() == 60_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert host.host_free() > 60_000_000


def test_the_total_of_a_gpu_includes_the_memory_of_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requested: list[int | None] = []

    def constant(value: Any) -> Any:
        return lambda number=None: requested.append(number) or value

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", constant((20 * GIB, 80 * GIB)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", constant(3 * GIB))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", constant(5 * GIB))
    context = memory.GPU_CONTEXT
    assert memory.gpu_peak(1) == (5 * GIB + context, 23 * GIB + context)
    assert requested == [1, 1, 1]


def test_without_a_gpu_the_peak_is_zero() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert memory.gpu_peak() == (0, 0)
    assert memory.visible_gpus() == []


# -- the share of the cores ----------------------------------------------------------------


def shares_of(jobs: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The largest number of workers and the threads of each that an engine uses for these jobs."""
    found: list[tuple[int, int]] = []

    def growing(self: LocalEngine, machine: Machine, threads: int, *_: Any) -> list[Any]:
        found.append((machine.cores, threads))
        return []

    monkeypatch.setattr(LocalEngine, "_growing", growing)
    LocalEngine()(jobs, lambda _: None)
    return found


@pytest.mark.slow
def test_a_run_continues_with_its_number_of_workers(
    make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job(fold=k) for k in (0, 1)]
    jobs[0].run.begin(jobs[0].manifest, jobs[0].folds, {})
    write_spec(jobs[0])
    monkeypatch.setattr(local, "cores", lambda: 2)
    assert LocalEngine()(jobs, lambda _: None) == []
    stored = json.loads((jobs[0].run.path / CHOICE).read_text())
    stored.pop("own_digest")
    assert stored == {"cores": 2, "jobs": 2, "slots": 2, "threads": 1}
    write_checked(jobs[0].run.path / CHOICE, {**stored, "slots": 1, "threads": 2})
    assert shares_of(jobs, monkeypatch) == [(1, 2)]
    assert shares_of(jobs * 2, monkeypatch) == [(2, 1)]


@pytest.mark.slow
def test_workers_are_added_after_a_measurement(
    make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job(fold=k, epochs=60) for k in range(3)]
    jobs[0].run.begin(jobs[0].manifest, jobs[0].folds, {})
    write_spec(jobs[0])
    monkeypatch.setattr(local, "cores", lambda: 2)
    monkeypatch.setattr(local, "host_free", lambda: 4 * GIB)
    events: list[Event] = []
    at_work: list[int] = []

    def count_workers(event: Event) -> None:
        events.append(event)
        if isinstance(event, JobStarted):
            at_work.append(len(psutil.Process().children()))

    assert LocalEngine()(jobs, count_workers) == []
    assert at_work[0] == 1
    assert max(at_work) == 2
    printed = [e.text for e in events if isinstance(e, Notice)]
    assert any("2 jobs run at the same time" in text for text in printed), printed


def test_engines_distribute_workers_over_gpus_and_use_one_job_on_other_devices(
    make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, int, list[str], bool]] = []

    class FakePool:
        def __init__(
            self, slots: int, threads: int, *_: Any, resize: Any = None, gpus: Any = ()
        ) -> None:
            started.append((slots, threads, list(gpus), resize is not None))

        def run(self) -> list[Any]:
            return []

    monkeypatch.setattr(local, "Pool", FakePool)
    monkeypatch.setattr(local, "cores", lambda: 16)
    monkeypatch.setattr(local, "host_free", lambda: 64 * GIB)
    monkeypatch.setattr(local, "visible_gpus", lambda: ["2", "5"])

    def on(device: str, n_jobs: int = 20) -> tuple[int, int, list[str], bool]:
        job = dataclasses.replace(make_job(), device=torch.device(device))
        LocalEngine()([job] * n_jobs, lambda _: None)
        return started[-1]

    assert on("cuda") == (2, 2, ["2", "5"], True)
    assert on("cuda:1") == (1, 4, [], True)
    assert on("mps") == (1, 16, [], False)
