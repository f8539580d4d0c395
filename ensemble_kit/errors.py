"""The errors that users see. Each says what is wrong, what is allowed, and what to do next."""

from __future__ import annotations

import difflib
import errno
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path


class EnsembleKitError(Exception):
    """Base class of all errors of this package.

    Parameters
    ----------
    problem : str
        What is wrong, with the user's own value: a sentence without its full stop.
    allowed : str
        What is allowed instead.
    advice : str
        What to do next.

    Attributes
    ----------
    exit_code : int
        Exit code of the command line.
    code : str
        Short name of the kind of error, stable across versions.

    Examples
    --------
    >>> print(DataError("Unknown label 'malign'", "a label names a class", "Did you mean 'malignant'?"))
    Unknown label 'malign'; a label names a class. Did you mean 'malignant'?
    """

    exit_code = 1
    code = "error"

    def __init__(self, problem: str, allowed: str, advice: str) -> None:
        super().__init__(problem, allowed, advice)
        self.problem, self.allowed, self.advice = problem, allowed, advice

    def __str__(self) -> str:
        advice, known = self.advice, self.advice.removeprefix("Known: ")
        if known != advice and all(name in self.allowed for name in known.split(", ")):
            advice = "Choose one of them"  # they are listed already
        end = "" if advice.endswith((".", "?", "!", ")")) else "."
        return f"{self.problem}; {self.allowed}. {advice}{end}"


class UsageError(EnsembleKitError, ValueError):
    """An unknown name, option or combination of options."""

    exit_code = 2
    code = "usage"


class DataError(EnsembleKitError, ValueError):
    """Invalid data or settings."""

    exit_code = 3
    code = "data"


class EnvironmentFault(EnsembleKitError, RuntimeError):
    """Something is missing on this machine: disk, memory, a GPU, a package, the network."""

    exit_code = 4
    code = "environment"


class JobsFailedError(EnsembleKitError, RuntimeError):
    """Some (member, fold) jobs failed; the results of the others are stored."""

    exit_code = 5
    code = "jobs-failed"


class RunLockedError(EnsembleKitError, RuntimeError):
    """Another process is working on the same run."""

    exit_code = 6
    code = "locked"


class IntegrityError(EnsembleKitError, RuntimeError):
    """A stored file is damaged, was changed, or is from another run."""

    exit_code = 7
    code = "integrity"


# Errors of a disk: the reason in words, and what to do.
DISK_FAULTS = {
    errno.ENOSPC: ("the disk is full", "free some space or choose another folder"),
    errno.EDQUOT: ("the quota is used up", "free some space or choose another folder"),
    errno.EFBIG: ("the file-size limit is reached", "raise it (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.EACCES: ("permission is denied", "ask its owner or choose another folder"),
    errno.EIO: ("the disk has an input/output error", "check the disk or choose another folder"),
}


def disk_fault(path: Path | None, error: OSError, n_bytes: int | None = None) -> EnvironmentFault:
    """The error for a file that cannot be written or read; `n_bytes` is its size."""
    reason, advice = DISK_FAULTS.get(
        error.errno or 0,
        (error.strerror or str(error), "remove the cause or choose another folder"),
    )
    how = "read or written" if error.errno in {errno.EACCES, errno.EIO} else "written"
    name = "Standard output, or a file without a name," if path is None else f"'{path}'"
    return EnvironmentFault(
        f"{name} cannot be {how}: {reason}",
        "the file system must accept it" if path is None else _free_space(path, n_bytes),
        f"Nothing was lost: {advice}, then run the same command",
    )


def _free_space(path: Path, n_bytes: int | None) -> str:
    needed = "" if n_bytes is None else f"{_size(n_bytes)} are needed, "
    try:
        return f"{needed}{_size(shutil.disk_usage(path.parent).free)} are free there"
    except OSError:
        return "its folder cannot be read"


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


_OF_SEVERAL = {"is": "are", "was": "were", "has": "have"}


def counted(count: int, noun: str, verb: str = "") -> str:
    """A count with its noun, and with a verb in the form that fits.

    Examples
    --------
    >>> counted(1, "image"), counted(2, "image", "has")
    ('1 image', '2 images have')
    """
    if count == 1:
        return f"{count} {noun} {verb}".rstrip()
    return f"{count} {noun}s {_OF_SEVERAL.get(verb, verb)}".rstrip()


def command(*words: object) -> str:
    """A command of this package as it can be pasted into a shell.

    Examples
    --------
    >>> command("report", "--run", "My Drive/run 1")
    "ensemble-kit report --run 'My Drive/run 1'"
    """
    return shlex.join(["ensemble-kit", *map(str, words)])
