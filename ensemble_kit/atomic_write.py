"""Writes files atomically, and removes temporary files of processes that have died."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ensemble_kit.errors import disk_fault

# Names of temporary files: digest of the host, process number, token.
TEMPORARY = re.compile(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp$")


def atomic_write(
    path: str | os.PathLike[str],
    write: Callable[[BinaryIO], object],
    *,
    n_bytes: int | None = None,
) -> None:
    """Call `write(file)` on a temporary file beside `path`, then rename it to `path`.

    Readers of `path` see the old content or the new, never a part: the data are synced before the
    rename, and the folder after it. `n_bytes` is the size of the file, if known.

    Raises
    ------
    EnvironmentFault
        The disk is full, over quota, or read-only; the old file is unchanged.
    """
    target = Path(path)
    name = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        name = temporary_beside(target)
        with name.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _fail_point(target, "written")
        name.replace(target)
        name = None
        _fail_point(target, "renamed")
        sync_folder(target.parent)
    except OSError as error:
        if name is not None:
            name.unlink(missing_ok=True)
        raise disk_fault(_final_path(target), error, n_bytes) from error
    finally:
        if name is not None:
            name.unlink(missing_ok=True)


def temporary_beside(target: Path) -> Path:
    """A unique name beside `target`, which `sweep` recognises."""
    return target.parent / f".{target.name[:40]}.{_this_process()}-{secrets.token_hex(4)}.tmp"


def _final_path(target: Path) -> Path:
    """The final path of a file, whose folder may have a temporary name."""
    parts = [TEMPORARY.sub("", p)[1:] if TEMPORARY.search(p) else p for p in target.parts]
    return Path(*parts)


def _this_process() -> str:
    return f"{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}-{os.getpid()}"


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove temporary files and folders below `folder` of processes of this host that have died.

    Those of other hosts are removed when they are a day old.
    """
    own_host = _this_process().partition("-")[0]
    for path in _temporaries(folder):
        named = TEMPORARY.search(path.name)
        assert named is not None
        host, pid = named.groups()
        with contextlib.suppress(OSError):
            if (host == own_host and not _is_alive(int(pid))) or (
                host != own_host and time.time() - path.stat().st_mtime > 86_400
            ):
                _remove(path)


def _temporaries(folder: str | os.PathLike[str]) -> list[Path]:
    """Files with a temporary name below `folder`; files that vanish meanwhile are skipped."""
    return [
        Path(root, name)
        for root, folders, names in os.walk(folder)
        for name in (*folders, *names)
        if TEMPORARY.search(name)
    ]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fail_point(target: Path, stage: str) -> None:
    """Exit here if a crash test asks for it: `ENSEMBLE_KIT_FAIL_AT=fold.json:written`."""
    if os.environ.get("ENSEMBLE_KIT_FAIL_AT") == f"{target.name}:{stage}":
        os._exit(9)


def sync_folder(folder: Path) -> None:
    """Sync `folder`, so that renames survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
