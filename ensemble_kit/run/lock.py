"""Locks a folder for one process: a file lock, and a heartbeat file where locks do not work.

Some network file systems grant a lock to two hosts at once; there the heartbeat file decides. It is
created in one step, names its process, and holds a number that grows while the process lives.
Clocks are never compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ensemble_kit.atomic_write import temporary_beside
from ensemble_kit.errors import IntegrityError, RunLockedError, disk_fault
from ensemble_kit.locks import file_lock

LOCK, HEARTBEAT = ".lock", ".claim"
HEARTBEAT_SECONDS = 10.0
# A process on another host counts as dead if its number does not grow for this many beats.
PATIENCE = 3.5


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process in a heartbeat file; `place` is the host and namespace of its process number."""

    pid: int
    host: str
    place: str
    started: str
    token: str
    beat: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextlib.contextmanager
def held(folder: Path, *, seconds: float = 0.0) -> Iterator[None]:
    """Lock a folder inside a `with` block, waiting up to `seconds` for another process.

    Raises
    ------
    RunLockedError
        Another process has the lock; the message names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as lock:
        try:
            # Without file locks only the heartbeat file decides.
            lock.enter_context(file_lock(folder / LOCK, seconds=seconds))
        except TimeoutError:
            raise _refusal(folder, read_holder(folder)) from None
        with _beating(folder, _take(folder, end)):
            yield


@contextlib.contextmanager
def _beating(folder: Path, holder: Holder) -> Iterator[None]:
    gone = threading.Event()
    beating = threading.Thread(target=_renew, args=(folder, holder, gone), daemon=True)
    try:
        beating.start()
        yield
    finally:
        gone.set()
        if beating.ident is not None:
            beating.join()
        _remove(folder, holder.token)


def is_held(folder: Path) -> bool:
    """Whether a living process seems to have the lock; for display only."""
    if not (folder / LOCK).is_file():
        return False
    holder = read_holder(folder)
    if holder is not None and holder.place == _place():
        return _is_running(holder)
    try:
        with file_lock(folder / LOCK, seconds=0):
            pass
    except TimeoutError:
        return True
    except (OSError, IntegrityError):  # the file cannot be locked, or is not a lock file
        pass
    return holder is not None and _is_recent(folder / HEARTBEAT)


def locks_work(folder: Path) -> bool:
    """Whether the file system supports locks; else only the heartbeat file is used."""
    path = temporary_beside(folder / LOCK)
    try:
        with file_lock(path, seconds=0) as works:
            return works
    finally:
        path.unlink(missing_ok=True)


def read_holder(folder: Path) -> Holder | None:
    """The process in the heartbeat file, or None."""
    return _read(folder / HEARTBEAT)


def _read(path: Path) -> Holder | None:
    try:
        # Opening a pipe would never return.
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        holder = Holder(**json.loads(path.read_text()))
        return holder if 0 < holder.pid < 2**31 else None
    except (OSError, ValueError, TypeError):
        return None


def _take(folder: Path, end: float) -> Holder:
    own = Holder(
        os.getpid(),
        platform.node(),
        _place(),
        _started(os.getpid()),
        secrets.token_hex(8),
        _count(0),
    )
    while not _create(folder, own):
        other = read_holder(folder)
        if other is None or _is_dead(folder, other):
            _remove(folder, other.token if other else "")
        elif time.monotonic() >= end:
            raise _refusal(folder, other)
        else:
            time.sleep(0.2)
    return own


def _create(folder: Path, holder: Holder) -> bool:
    """Create the heartbeat file; False if there is one already."""
    part, text = temporary_beside(folder / HEARTBEAT), _text(holder)
    try:
        part.write_text(text)
        return _publish(part, folder / HEARTBEAT, text)
    except OSError as error:
        raise disk_fault(folder / HEARTBEAT, error, len(text)) from error
    finally:
        part.unlink(missing_ok=True)


def _publish(part: Path, path: Path, text: str) -> bool:
    with contextlib.suppress(FileExistsError):
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:  # no hard links on this file system
            with path.open("x") as file:
                file.write(text)
        return True
    return False


def _remove(folder: Path, token: str) -> None:
    """Delete the heartbeat file with this token, but not another one in its place."""
    aside = temporary_beside(folder / HEARTBEAT)
    try:
        (folder / HEARTBEAT).rename(aside)
    except OSError:
        return
    found = _read(aside)
    if found is not None and found.token != token:
        with contextlib.suppress(OSError):
            os.link(aside, folder / HEARTBEAT)
    with contextlib.suppress(OSError):
        aside.unlink()


def _is_dead(folder: Path, other: Holder) -> bool:
    if other.place == _place():
        return not _is_running(other)
    # A process may lock a run and jobs: all its heartbeat files are checked at the same time.
    below = {path.parent: _read(path) for path in folder.glob(f"*/**/{HEARTBEAT}")}
    end = time.monotonic() + PATIENCE * HEARTBEAT_SECONDS
    while time.monotonic() < end:
        time.sleep(HEARTBEAT_SECONDS / 4)
        if read_holder(folder) != other:
            return False
    for held_below, holder in below.items():
        if holder is not None and holder.place != _place() and read_holder(held_below) == holder:
            _remove(held_below, holder.token)
    return True


def _renew(folder: Path, holder: Holder, gone: threading.Event) -> None:
    n = 0
    while not gone.wait(HEARTBEAT_SECONDS):
        n += 1
        # Overwritten in place with the same length, so that it works on a full disk.
        with contextlib.suppress(OSError):
            now = read_holder(folder)
            if now is not None and now.token == holder.token:
                with (folder / HEARTBEAT).open("r+") as file:
                    file.write(_text(dataclasses.replace(holder, beat=_count(n))))


def _text(holder: Holder) -> str:
    return json.dumps(dataclasses.asdict(holder)) + "\n"


def _count(n: int) -> str:
    return f"{n:012d}"


def _refusal(folder: Path, holder: Holder | None) -> RunLockedError:
    return RunLockedError(
        f"'{folder}' is used by {holder or 'an unknown process'}",
        "one process at a time may work on a run, and on each of its jobs",
        "Wait for that process, stop it, or use another --run folder",
    )


def _place() -> str:
    """The host, and on Linux the process namespace, because containers number their own processes."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _is_running(holder: Holder) -> bool:
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(holder.pid) == holder.started


def _started(pid: int) -> str:
    """Start time of a process, to detect reused process numbers; empty on systems without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has no locks.
    return "" if fields[0] == "Z" else fields[19]


def _is_recent(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < PATIENCE * HEARTBEAT_SECONDS
    except OSError:
        return False
