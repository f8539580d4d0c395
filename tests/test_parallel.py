"""`in_threads` and `in_processes`: order of results, and processes that are killed."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from ensemble_kit import parallel
from ensemble_kit.parallel import in_processes, in_threads


def test_results_of_threads_are_in_order() -> None:
    seen: list[int] = []

    def work(i: int) -> tuple[int, int]:
        seen.append(i)
        return i, threading.get_ident()

    found = list(in_threads(work, range(40)))
    assert [i for i, _ in found] == list(range(40))
    assert sorted(seen) == list(range(40))
    assert list(in_threads(work, [])) == []


def test_short_work_stays_in_this_process() -> None:
    assert in_processes(lambda i: (i, os.getpid()), range(5)) == [
        (i, os.getpid()) for i in range(5)
    ]


@pytest.mark.slow
def test_long_work_continues_in_other_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "WORTH_PROCESSES", -1.0)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    found = in_processes(lambda i: (i * i, os.getpid()), range(6))
    assert [square for square, _ in found] == [i * i for i in range(6)]
    assert os.getpid() not in {process for _, process in found}


@pytest.mark.slow
def test_work_of_a_killed_process_is_repeated_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parallel, "WORTH_PROCESSES", -1.0)
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    own, mark = os.getpid(), tmp_path / "killed"

    def work(i: int) -> int:
        if os.getpid() != own:
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    assert in_processes(work, range(3)) == [0, 1, 2]
    assert mark.exists()
