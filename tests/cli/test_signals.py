"""Ctrl-C and SIGTERM around a command: the process ends with an exit code, not by the signal."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# A signal at the end of Python: in a callback of atexit, or when modules are deleted.
AT_THE_END = """
import atexit, os, signal, sys
import ensemble_kit.cli as cli
from ensemble_kit.__main__ import main

class AtTheEnd:
    def __del__(self, kill=os.kill, me=os.getpid(), number={number}):
        kill(me, number)

def send():
    os.kill(os.getpid(), {number})

if {moment!r} == "early":
    atexit.register(send)
elif {moment!r} == "modules":
    reference = AtTheEnd()

def work(**_):
    open("result", "w").write("whole")
    if {moment!r} == "late":
        atexit.register(send)

cli.app = work
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["early", "late", "modules"])
def test_a_signal_after_the_command_gives_an_exit_code(
    tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    (tmp_path / "probe.py").write_text(AT_THE_END.format(number=int(number), moment=moment))
    done = subprocess.run(
        [sys.executable, "-m", "probe"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == (128 + number if moment == "late" else 0), done.stderr
    assert done.stderr == b""
    assert (tmp_path / "result").read_text() == "whole"


def test_a_signal_that_the_caller_ignores_stays_ignored(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(
        "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import ensemble_kit.cli as cli\nfrom ensemble_kit.__main__ import main\n"
        "cli.app = lambda **_: (os.kill(os.getpid(), signal.SIGINT), print('done'))\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "probe"], cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_the_process_ends_without_python_shutdown(tmp_path: Path) -> None:
    """At the shutdown of Python, a daemon thread that requests the GIL is unwound: C++ aborts then."""
    (tmp_path / "probe.py").write_text(
        "import atexit\n"
        "import ensemble_kit.cli as cli\nfrom ensemble_kit.__main__ import main\n"
        "class Late:\n    def __del__(self): print('python shuts down', flush=True)\n"
        "reference = Late()\natexit.register(print, 'registered', flush=True)\n"
        "def work(**_): raise KeyboardInterrupt\n"
        "cli.app = work\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "probe"], cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, b"registered\n")
