"""Which errors are the machine's and not the training's: memory that ran out, a disk that is full.

Judges errors; mends nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from ensemble_kit.errors import EnsembleKitError, EnvironmentFault
from ensemble_kit.files import DISK_FAULTS, disk_fault

# How torch, oneDNN, the C++ library and the system say that the host's memory ran out.
HOST_MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "std::bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a device, or plainly on the CPU.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"))
    True
    >>> is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    False
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(
        words in str(error) for words in HOST_MEMORY_WORDS
    )


def machine_fault(error: BaseException, folder: Path) -> EnvironmentFault | None:
    """What the machine lacked, where an error in a job that writes to `folder` comes from that."""
    for link in _chain(error):
        if isinstance(link, EnvironmentFault):
            return link
        if isinstance(link, OSError) and link.errno in DISK_FAULTS:
            return disk_fault(Path(link.filename or folder / "fold.json"), link)
        if is_out_of_memory(link):
            return EnvironmentFault(
                "A job fits into memory",
                f"it does not: {str(link).strip().splitlines()[0][:200]}",
                "Use fewer --slots, a smaller --image-size or batch_size, or free memory",
            )
    return None


@contextlib.contextmanager
def told_apart(folder: Path) -> Iterator[None]:
    """Inside the block, an error that comes from the machine becomes an `EnvironmentFault`."""
    try:
        yield
    except EnsembleKitError:
        raise
    except Exception as error:
        fault = machine_fault(error, folder)
        if fault is None:
            raise
        raise fault from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
