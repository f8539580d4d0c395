"""Recognises errors of the machine: no memory, a full disk, reached limits."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ensemble_kit.errors import DISK_FAULTS, EnsembleKitError, EnvironmentFault, disk_fault

# Messages of torch, the C++ library and the system when host memory runs out.
HOST_MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "std::bad_alloc",
    "failed to map segment from shared object",
)
# Messages of CUDA, its libraries and Metal when device memory runs out, without a class in torch.
DEVICE_MEMORY_WORDS = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)
# oneDNN has this message if memory runs out, and also if an operation is not supported.
ONEDNN_WORDS = "could not create a primitive"
# Messages when a limit of the process is reached, and how to raise the limit.
LIMITS = {
    os.strerror(errno.EMFILE): "raise the limit on open files (ulimit -n)",
    os.strerror(errno.ENFILE): "close other programs: this is a limit of the whole machine",
    "can't start new thread": "raise the limit on processes (ulimit -u)",
    os.strerror(errno.EAGAIN): "raise the limit on processes (ulimit -u)",
}
# First characters of SQLite error codes that come from the disk.
DATABASE_FAULTS = {
    "SQLITE_FULL": errno.ENOSPC,
    "SQLITE_IOERR": errno.EIO,
    "SQLITE_READONLY": errno.EROFS,
    "SQLITE_CANTOPEN": errno.EACCES,
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a device or on the CPU.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"))
    True
    >>> is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    False
    """
    if isinstance(error, MemoryError) or _is_torch_error(error):
        return True
    if not isinstance(error, (RuntimeError, OSError, ImportError)):
        return False
    if ONEDNN_WORDS in str(error):
        return not _has_free_memory()
    return any(words in str(error) for words in (*HOST_MEMORY_WORDS, *DEVICE_MEMORY_WORDS))


def machine_fault(error: BaseException, target: Path | None = None) -> EnvironmentFault | None:
    """The fault of the machine that caused an error, or None; `target` is the file that was written."""
    for link in chain(error):
        found = _fault(link, target)
        if found is not None:
            return found
    return None


@contextlib.contextmanager
def as_machine_fault(target: Path) -> Iterator[None]:
    """Turn errors of the machine inside the block into an `EnvironmentFault`."""
    try:
        yield
    except EnsembleKitError:
        raise
    except Exception as error:
        fault = machine_fault(error, target)
        if fault is None:
            raise
        raise fault from error


def _fault(error: BaseException, target: Path | None) -> EnvironmentFault | None:
    if isinstance(error, EnvironmentFault):
        return error
    refused = _refused(error)
    if refused is not None:
        path = refused.filename or target
        return disk_fault(Path(os.fsdecode(path)) if path is not None else None, refused)
    if is_out_of_memory(error):
        return EnvironmentFault(
            f"A job does not fit into memory: {(str(error).strip() or 'MemoryError').splitlines()[0][:200]}",
            "all jobs that run at the same time must fit",
            "Use fewer --slots, a smaller --image-size or batch_size, or free memory",
        )
    if isinstance(error, (OSError, RuntimeError, ImportError)):
        for words, advice in LIMITS.items():
            if words in str(error):
                return EnvironmentFault(
                    f"A limit of this machine is reached ({words}): {type(error).__name__}: {str(error)[:200]}",
                    "all jobs that run at the same time share its limits",
                    f"Use fewer --slots, or {advice}, then run the same command",
                )
    return None


def _refused(error: BaseException) -> OSError | None:
    """The disk error behind an error of the system or of SQLite, or None."""
    if isinstance(error, OSError) and error.errno in DISK_FAULTS:
        return error
    code = getattr(error, "sqlite_errorname", "")
    for begin, number in DATABASE_FAULTS.items():
        if code.startswith(begin):
            return OSError(number, str(error))
    return None


def _is_torch_error(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, getattr(torch, "OutOfMemoryError", ()))


def _has_free_memory() -> bool:
    """Whether 1 GiB can be allocated."""
    try:
        bytearray(2**30)
    except MemoryError:
        return False
    return True


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
