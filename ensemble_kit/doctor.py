"""Checks this machine: Python, packages, device, memory, disk, locks."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.files import cache_folder
from ensemble_kit.locks import file_lock
from ensemble_kit.memory import host_free

# Less than this stops a usual training.
LEAST_MEMORY, LEAST_DISK = 2 * 2**30, 2 * 2**30


@dataclasses.dataclass(frozen=True)
class Check:
    """One result of the check.

    Parameters
    ----------
    name : str
    found : str
    problem : str
        What is missing and what to do; empty if nothing is missing.
    """

    name: str
    found: str
    problem: str = ""


def diagnose(folder: str | os.PathLike[str] = "checkpoints") -> list[Check]:
    """Check the machine.

    Parameters
    ----------
    folder : path
        Run folder, or the folder of runs. It need not exist.
    """
    return [
        Check("Python", f"{platform.python_version()} on {platform.platform()}"),
        *_packages(),
        _device(),
        _memory(),
        *_folders(Path(folder)),
    ]


def _packages() -> Iterator[Check]:
    for need in importlib.metadata.requires("ensemble-kit") or []:
        if "extra ==" in need:
            continue
        name = re.split(r"[^A-Za-z0-9._-]", need, maxsplit=1)[0]
        try:
            yield Check(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, "not installed", f"Run pip install '{need}'")


def _device() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("device", "torch cannot be loaded", f"Install torch again: {error}")
    cores = f"{len(os.sched_getaffinity(0))} CPU cores"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Check("device", f"{', '.join(names)}; {cores}")
    return Check(
        "device", f"{'Apple GPU (mps)' if torch.backends.mps.is_available() else 'no GPU'}; {cores}"
    )


def _memory() -> Check:
    free = host_free()
    few = "Close other programs, or use a machine with more memory" if free < LEAST_MEMORY else ""
    return Check("free memory", f"{free / 2**30:.1f} GiB", few)


def _folders(folder: Path) -> Iterator[Check]:
    yield from _folder("run folder", folder)
    try:
        cache = cache_folder()
    except EnsembleKitError as error:
        yield Check("cache folder", "none", str(error))
    else:
        yield from _folder("cache folder", cache)


def _folder(name: str, folder: Path) -> Iterator[Check]:
    """Free space, write permission and locks of the folder, or of its nearest existing parent."""
    there = folder.absolute()
    while not there.is_dir() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    few = "Free some space, or choose another folder" if free < LEAST_DISK else ""
    yield Check(f"{name}", f"{folder}: {free / 2**30:.1f} GiB free", few)
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".doctor-") as probe:
            has_locks = False
            with (
                contextlib.suppress(TimeoutError),
                file_lock(Path(probe) / "lock", seconds=0) as held,
            ):
                has_locks = held
    except OSError as error:
        yield Check(
            f"{name}: writing",
            str(error.strerror),
            f"Choose a folder that you may write, not '{there}'",
        )
        return
    # Runs work without locks too, by heartbeat files.
    found = "work" if has_locks else "not supported by this disk: the run uses heartbeat files"
    yield Check(f"{name}: file locks", found)
