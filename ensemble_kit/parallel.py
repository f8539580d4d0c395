"""Distributes independent tasks over the cores of this machine, with joblib."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

# More threads do not make decoding faster.
MOST_THREADS = 16
# Processes need about two seconds to start; they are used for work of more seconds than this.
WORTH_PROCESSES = 10.0


def cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(work: Callable[[T], U], items: Sequence[T]) -> Iterable[U]:
    """The result of each item, in order, as soon as it is ready. For work that releases the GIL."""
    from joblib import Parallel, delayed

    n_threads = max(1, min(MOST_THREADS, cores(), len(items)))
    pool = Parallel(n_jobs=n_threads, backend="threading", return_as="generator")
    found: Iterable[U] = pool(delayed(work)(item) for item in items)
    return found


def in_processes(work: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """The result of each item, in order. Long work continues in other processes.

    If the system kills one of these processes, its work is done again in this process.

    Parameters
    ----------
    work : callable
        Must give the same result in every process, and limit its BLAS threads itself.
    items : sequence
    """
    began, done = time.monotonic(), []
    for item in items:
        if cores() > 1 and time.monotonic() - began > WORTH_PROCESSES:
            break
        done.append(work(item))
    rest = items[len(done) :]
    return done + _in_others(work, rest) if rest else done


def _in_others(work: Callable[[T], U], items: Sequence[T]) -> list[U]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    try:
        return list(Parallel(n_jobs=min(cores(), len(items)))(delayed(work)(one) for one in items))
    except BrokenProcessPool:
        return [work(one) for one in items]
    finally:
        get_reusable_executor().shutdown()  # idle processes would hold memory for minutes
