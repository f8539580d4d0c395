"""Standard input, output and error as the command line needs them: open, and able to print any name.

Knows nothing of commands.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def prepare() -> None:
    """Open what the caller closed, speak UTF-8 where the locale is ASCII, escape what cannot be printed."""
    _open_closed()
    _leave_ascii()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _open_closed() -> None:
    """Without this, the first file that is opened would take the place of standard output."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _leave_ascii() -> None:
    """Begin again in Python's UTF-8 mode: names of files and classes are not ASCII alone."""
    ascii_only = sys.getfilesystemencoding() in {"ascii", "us-ascii"}
    if ascii_only and not sys.flags.ignore_environment and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def let_go() -> None:
    """Let nothing that could not be printed disturb the end of the process."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _to_nowhere(stream)


def _to_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        stream.flush()
