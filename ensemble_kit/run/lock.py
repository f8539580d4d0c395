"""Who holds a folder: a lock that dies with its holder, and a claim that beats where locks do not work.

Some network file systems grant a lock to two hosts at once; there the claim decides. It is created
in one step, names its process, and counts on while that lives. No clock is compared with another.
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

from ensemble_kit.errors import IntegrityError, RunLockedError, disk_fault
from ensemble_kit.files import temporary_beside
from ensemble_kit.locks import file_lock

LOCK, CLAIM = ".lock", ".claim"
BEAT_SECONDS = 10.0
# A claim of another host that does not count on for so many beats is that of a dead process.
PATIENCE = 3.5


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that a claim names; `place` is where its number means something."""

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
    """Hold a folder for the length of a `with` block, waiting up to `seconds` for another holder.

    Raises
    ------
    RunLockedError
        Another process holds it; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as lock:
        try:
            # A file system without locks leaves the claim alone to decide.
            lock.enter_context(file_lock(folder / LOCK, seconds=seconds))
        except TimeoutError:
            raise _refusal(folder, read_holder(folder)) from None
        with _beating(folder, _claim(folder, end)):
            yield


@contextlib.contextmanager
def _beating(folder: Path, holder: Holder) -> Iterator[None]:
    gone = threading.Event()
    beating = threading.Thread(target=_beat, args=(folder, holder, gone), daemon=True)
    try:
        beating.start()
        yield
    finally:
        gone.set()
        if beating.ident is not None:
            beating.join()
        _remove(folder, holder.token)


def is_held(folder: Path) -> bool:
    """Whether a living process seems to hold the folder; for a look, not for a decision."""
    if not (folder / LOCK).is_file():
        return False
    holder = read_holder(folder)
    if holder is not None and holder.place == _place():
        return _lives(holder)
    try:
        with file_lock(folder / LOCK, seconds=0):
            pass
    except TimeoutError:
        return True
    except (OSError, IntegrityError):  # one that we may not lock, or no lock file at all
        pass
    return holder is not None and _seems_fresh(folder / CLAIM)


def locks_work(folder: Path) -> bool:
    """Whether the folder's file system knows locks; where it does not, the claim alone holds it."""
    path = temporary_beside(folder / LOCK)
    try:
        with file_lock(path, seconds=0) as works:
            return works
    finally:
        path.unlink(missing_ok=True)


def read_holder(folder: Path) -> Holder | None:
    """Who claims the folder, or None."""
    return _read(folder / CLAIM)


def _read(claim: Path) -> Holder | None:
    try:
        # Whoever opened a pipe would wait for ever.
        if not stat.S_ISREG(claim.lstat().st_mode):
            return None
        holder = Holder(**json.loads(claim.read_text()))
        return holder if 0 < holder.pid < 2**31 else None
    except (OSError, ValueError, TypeError):
        return None


def _claim(folder: Path, end: float) -> Holder:
    mine = Holder(
        os.getpid(),
        platform.node(),
        _place(),
        _started(os.getpid()),
        secrets.token_hex(8),
        _count(0),
    )
    while not _create(folder, mine):
        other = read_holder(folder)
        if other is None or _is_dead(folder, other):
            _remove(folder, other.token if other else "")
        elif time.monotonic() >= end:
            raise _refusal(folder, other)
        else:
            time.sleep(0.2)
    return mine


def _create(folder: Path, holder: Holder) -> bool:
    """Whether the claim was put in place, whole, where none stood."""
    part, text = temporary_beside(folder / CLAIM), _text(holder)
    try:
        part.write_text(text)
        return _put_in_place(part, folder / CLAIM, text)
    except OSError as error:
        raise disk_fault(folder / CLAIM, error, len(text)) from error
    finally:
        part.unlink(missing_ok=True)


def _put_in_place(part: Path, claim: Path, text: str) -> bool:
    with contextlib.suppress(FileExistsError):
        try:
            os.link(part, claim)
        except FileExistsError:
            raise
        except OSError:  # no hard links here
            with claim.open("x") as file:
                file.write(text)
        return True
    return False


def _remove(folder: Path, token: str) -> None:
    """Take away the claim with this token, and no other that came in its place."""
    aside = temporary_beside(folder / CLAIM)
    try:
        (folder / CLAIM).rename(aside)
    except OSError:
        return
    found = _read(aside)
    if found is not None and found.token != token:
        with contextlib.suppress(OSError):
            os.link(aside, folder / CLAIM)
    with contextlib.suppress(OSError):
        aside.unlink()


def _is_dead(folder: Path, other: Holder) -> bool:
    if other.place == _place():
        return not _lives(other)
    # A run's process holds jobs too: their claims are observed in the same time, not one by one.
    below = {path.parent: _read(path) for path in folder.glob(f"*/**/{CLAIM}")}
    end = time.monotonic() + PATIENCE * BEAT_SECONDS
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS / 4)
        if read_holder(folder) != other:
            return False
    for held_below, holder in below.items():
        if holder is not None and holder.place != _place() and read_holder(held_below) == holder:
            _remove(held_below, holder.token)
    return True


def _beat(folder: Path, holder: Holder, gone: threading.Event) -> None:
    n = 0
    while not gone.wait(BEAT_SECONDS):
        n += 1
        # In place and of one length: a full disk takes it too.
        with contextlib.suppress(OSError):
            now = read_holder(folder)
            if now is not None and now.token == holder.token:
                with (folder / CLAIM).open("r+") as file:
                    file.write(_text(dataclasses.replace(holder, beat=_count(n))))


def _text(holder: Holder) -> str:
    return json.dumps(dataclasses.asdict(holder)) + "\n"


def _count(n: int) -> str:
    return f"{n:012d}"


def _refusal(folder: Path, holder: Holder | None) -> RunLockedError:
    return RunLockedError(
        "One process at a time works on a run, and on each of its jobs",
        f"'{folder}' is held by {holder or 'an unknown process'}",
        "Wait for it, stop it, or use another --run folder",
    )


def _place() -> str:
    """The host, and on Linux the processes' namespace: a container counts its own."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _lives(holder: Holder) -> bool:
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(holder.pid) == holder.started


def _started(pid: int) -> str:
    """When a process started, so that its number in another's hands is noticed; empty off Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie holds nothing any more.
    return "" if fields[0] == "Z" else fields[19]


def _seems_fresh(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < PATIENCE * BEAT_SECONDS
    except OSError:
        return False
