"""Opens standard input, output and error, and sets them to UTF-8."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def prepare() -> None:
    """Open closed streams, use UTF-8 if the locale is ASCII, and escape characters that cannot be printed."""
    _open_closed()
    _restart_in_utf8()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _open_closed() -> None:
    """Open closed streams: otherwise the next opened file would be used as standard output."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _restart_in_utf8() -> None:
    """Restart in Python's UTF-8 mode, for names of files and classes that are not ASCII."""
    ascii_only = sys.getfilesystemencoding() in {"ascii", "us-ascii"}
    if ascii_only and not sys.flags.ignore_environment and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def flush() -> None:
    """Flush standard output and error at the end of the process; errors are ignored."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _redirect_to_null(stream)


def _redirect_to_null(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        stream.flush()
