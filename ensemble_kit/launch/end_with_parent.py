"""A job's process ends with the process that started it, however that one ended.

On Linux the kernel sees to it; elsewhere nothing happens, and a job may outlive its engine.
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
    """This process's environment for a child that is to end with it."""
    return {**os.environ, **(extra or {}), PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Have the kernel end this process with the one that `child_environment` named, if any did.

    A parent that died before the kernel was told is noticed too: an orphan has another parent.
    """
    named = os.environ.pop(PARENT, "")
    if not named.isdecimal() or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(named):
        os._exit(1)
