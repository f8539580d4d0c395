"""Which errors are the machine's and not the training's: memory that ran out, a disk that is full.

Judges errors; mends nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

import torch

from ensemble_kit.errors import DISK_FAULTS, EnsembleKitError, EnvironmentFault, disk_fault

# How torch, the C++ library and the system say that the host's memory ran out.
HOST_MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "std::bad_alloc",
)
# How CUDA, its libraries and Metal say that a device's memory ran out, where torch has no class for it.
DEVICE_MEMORY_WORDS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)
# oneDNN says no more than this, where memory ran out and where it cannot do a thing at all.
ONEDNN_WORDS = "could not create a primitive"


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
    if not isinstance(error, (RuntimeError, OSError)):
        return False
    if ONEDNN_WORDS in str(error):
        return not _has_room()
    return any(words in str(error) for words in (*HOST_MEMORY_WORDS, *DEVICE_MEMORY_WORDS))


def _has_room() -> bool:
    """Whether the system would hand out another gibibyte; it is not touched, so it costs nothing."""
    try:
        bytearray(2**30)
    except MemoryError:
        return False
    return True


def give_back(device: torch.device) -> None:
    """Give memory that is free but kept back to the device, or to the system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


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
                f"it does not: {(str(link).strip() or 'MemoryError').splitlines()[0][:200]}",
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
