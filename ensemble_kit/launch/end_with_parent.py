"""Ends the process of a job when the process that started it ends.

This works on Linux. On other systems a job may outlive its engine.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping

PARENT = "ENSEMBLE_KIT_PARENT"
PR_SET_PDEATHSIG = 1


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child process that should end with this process."""
    return {**os.environ, **(extra or {}), PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Let the kernel end this process when the process named by `child_environment` ends.

    If that process has already died, this process ends at once.
    """
    named = os.environ.pop(PARENT, "")
    if not named.isdecimal() or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(named):
        os._exit(1)
