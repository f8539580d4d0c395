"""The command line: `ensemble-kit`, or `python -m ensemble_kit`."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

# Exit codes of a command that a signal stopped.
STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM}


def main() -> None:
    """Load the command line and run it. After a signal, the exit code is 128 plus its number.

    While the command line loads, and after the command has ended, a signal ends the process at
    once. While Python shuts down, signals are ignored: the work is done, and Python's default would
    end the process without an exit code. A command that a signal stopped may leave threads in C++
    code, which Python's shutdown would abort: it ends without that shutdown.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    _on_signal(_leave)
    atexit.register(_on_signal, signal.SIG_IGN)  # the function that is registered first runs last
    from ensemble_kit import cli

    signal.signal(signal.SIGINT, interrupt)
    try:
        cli.main()
    except SystemExit as end:
        if end.code in STOPPED:
            _end_at_once(end.code)
        raise
    finally:
        _on_signal(_leave)


def _end_at_once(code: int) -> None:
    """End this process after the registered exit functions, without Python's shutdown."""
    _on_signal(_leave)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)


def _on_signal(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # stays ignored, as set by the caller
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    os._exit(128 + number)


if __name__ == "__main__":
    main()
