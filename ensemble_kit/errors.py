"""The errors that users meet: what was found, what is allowed, and what to do next."""

from __future__ import annotations

import difflib
import errno
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path


class EnsembleKitError(Exception):
    """Base of every error that this package raises on purpose.

    Parameters
    ----------
    law : str
        What is allowed, as a sentence without its full stop.
    got : str
        What was found instead, with the user's own value. Where it begins with "got", it is printed
        first.
    advice : str
        What to do next.

    Attributes
    ----------
    exit_code : int
        Exit code of the command line.
    code : str
        Short name of the kind of error, which stays the same when sentences change.

    Examples
    --------
    >>> print(DataError("Labels must name a class", "got 'malign'", "Did you mean 'malignant'?"))
    got 'malign'. Labels must name a class. Did you mean 'malignant'?
    """

    exit_code = 1
    code = "error"

    def __init__(self, law: str, got: str, advice: str) -> None:
        super().__init__(law, got, advice)
        self.law, self.got, self.advice = law, got, advice

    def __str__(self) -> str:
        end = "" if self.advice.endswith((".", "?", "!", ")")) else "."
        if self.got.startswith("got "):
            return f"{self.got}. {self.law}. {self.advice}{end}"
        return f"{self.law}; {self.got}. {self.advice}{end}"


class UsageError(EnsembleKitError, ValueError):
    """A name, option or combination that does not exist."""

    exit_code = 2
    code = "usage"


class DataError(EnsembleKitError, ValueError):
    """Data or settings from which no right number can come."""

    exit_code = 3
    code = "data"


class EnvironmentFault(EnsembleKitError, RuntimeError):
    """The machine lacks something: disk, memory, a GPU, a package, the network."""

    exit_code = 4
    code = "environment"


class JobsFailedError(EnsembleKitError, RuntimeError):
    """Some (member, fold) jobs failed; the others are kept."""

    exit_code = 5
    code = "jobs-failed"


class RunLockedError(EnsembleKitError, RuntimeError):
    """Another process is working on the same run."""

    exit_code = 6
    code = "locked"


class IntegrityError(EnsembleKitError, RuntimeError):
    """A stored artefact is damaged, swapped or from another run."""

    exit_code = 7
    code = "integrity"


# What a disk refuses with: the reason in words, and what helps.
DISK_FAULTS = {
    errno.ENOSPC: ("the disk is full", "make room or choose another folder"),
    errno.EDQUOT: ("the quota is used up", "make room or choose another folder"),
    errno.EFBIG: ("the file-size limit is reached", "raise it (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.EACCES: ("permission is denied", "ask its owner or choose another folder"),
    errno.EIO: ("the disk has an input/output error", "check the disk or choose another folder"),
}


def disk_fault(path: Path | None, error: OSError, n_bytes: int | None = None) -> EnvironmentFault:
    """The error for a file that the disk refused; `n_bytes` is what writing it takes."""
    reason, advice = DISK_FAULTS.get(
        error.errno or 0, (error.strerror or str(error), "mend the cause or choose another folder")
    )
    how = "read or written" if error.errno in {errno.EACCES, errno.EIO} else "written"
    name = "Standard output, or a file without a name," if path is None else f"'{path}'"
    return EnvironmentFault(
        f"{name} cannot be {how}",
        reason if path is None else f"{reason} ({_room(path, n_bytes)})",
        f"The old state is intact: {advice}, then run the same command",
    )


def _room(path: Path, n_bytes: int | None) -> str:
    needed = "" if n_bytes is None else f"{_size(n_bytes)} are needed, "
    try:
        return f"{needed}{_size(shutil.disk_usage(path.parent).free)} are free there"
    except OSError:
        return "its folder cannot be reached"


def _size(n_bytes: int) -> str:
    if n_bytes < 10 * 2**10:
        return f"{n_bytes} bytes"
    if n_bytes < 2**20:
        return f"{n_bytes / 2**10:.0f} KiB"
    return f"{n_bytes / 2**20:.{1 if n_bytes < 100 * 2**20 else 0}f} MiB"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Advice for an unknown name: the nearest known one, or the list.

    Examples
    --------
    >>> did_you_mean("resnet81", ["resnet18", "densenet121"])
    "Did you mean 'resnet18'?"
    >>> did_you_mean("zzz", ["vote", "mean"])
    'Known: mean, vote'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'?" if near else "Known: " + ", ".join(names)


def first_few(items: Iterable[object], n: int = 5) -> str:
    """The first `n` items for an error message, and how many more there are.

    Examples
    --------
    >>> first_few(["a", "b", "c"], n=2)
    'a, b and 1 more'
    """
    listed = [str(item) for item in items]
    more = f" and {len(listed) - n} more" if len(listed) > n else ""
    return ", ".join(listed[:n]) + more


def command(*words: object) -> str:
    """A command of this package as it can be pasted into a shell.

    Examples
    --------
    >>> command("report", "--run", "My Drive/run 1")
    "ensemble-kit report --run 'My Drive/run 1'"
    """
    return shlex.join(["ensemble-kit", *map(str, words)])
