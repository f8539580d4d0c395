"""Fixtures: real trainings as separate processes, and small file systems."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.cli import main
from ensemble_kit.testing import toy_run

LONG = 100_000


class Processes:
    """Trainings and scripts as separate processes. Running processes are killed after the test."""

    def __init__(self) -> None:
        self.left: list[subprocess.Popen[str]] = []

    @staticmethod
    def command(slides: Path, folder: Path, *flags: object, epochs: int = LONG) -> list[str]:
        """`train-members` with one tiny network over two folds. By default it does not end."""
        return [
            sys.executable, "-m", "ensemble_kit", "train-members", "--data", str(slides), "--members",
            "tiny_cnn", "--folds", "2", "--image-size", "16", "--epochs", str(epochs),
            "--no-pretrained", "--run", str(folder), *map(str, flags),
        ]  # fmt: skip

    @staticmethod
    def finished(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, at most two minutes."""
        return subprocess.run(arguments, capture_output=True, text=True, timeout=120, **options)

    def started(self, arguments: list[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command. It is killed when the test ends."""
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        self.left.append(process)
        return process

    def python(self, code: str, *arguments: object, **options: Any) -> Any:
        """Run a short script to its end."""
        return self.finished([sys.executable, "-c", code, *map(str, arguments)], **options)

    @staticmethod
    def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
        """Wait until a condition is true. Fail after `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "timeout"
            time.sleep(0.05)


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Other processes, which are killed after the test."""
    own = Processes()
    yield own
    for process in own.left:
        process.kill()
        process.wait()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A tmpfs with the given mount options. Skips the test if this user may not mount."""
    folders: list[Path] = []

    def mount(options: str, name: str = "disk") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
        )
        if done.returncode:
            pytest.skip("this user may not mount a small disk")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def invoke() -> Callable[..., tuple[int, str]]:
    """`cli` for shared fixtures. It does not change the working directory."""

    def call(*words: object) -> tuple[int, str]:
        printed, code = io.StringIO(), 0
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["ensemble-kit", *map(str, words)])
            patch.setattr(sys, "stdout", printed)
            patch.setattr(sys, "stderr", printed)
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return code, printed.getvalue()

    return call


@pytest.fixture(scope="session")
def after_stack(
    tmp_path_factory: pytest.TempPathFactory, invoke: Callable[..., tuple[int, str]]
) -> Path:
    """A small toy run after `stack`, `conformal` and `operating-point`. Copy before you change it."""
    run = tmp_path_factory.mktemp("after-stack") / "run"
    toy_run(run, n_samples=80, n_members=2, n_classes=2, n_groups=20, n_folds=2)
    for name in ("stack", "conformal", "operating-point"):
        code, printed = invoke(*reading(run)[name])
        assert code == 0, printed
    return run


def reading(run: Path) -> dict[str, list[object]]:
    """Every command that reads a finished run, by name, with quick settings."""
    quick = ("--resamples", 20)
    return {
        "stack": ["stack", "--run", run, "--method", "mean,ridge", *quick],
        "conformal": ["conformal", "--run", run, "--method", "ridge", *quick],
        "operating-point": [
            "operating-point", "--run", run, "--method", "ridge", "--at", "youden",
            "--class", "class1", *quick,
        ],
        "compare": ["compare", run, run.parent / "other", "--method", "ridge", *quick],
        "diversity": ["diversity", "--run", run, *quick],
        "report": ["report", "--run", run],
        "status": ["status", run],
    }  # fmt: skip


@pytest.fixture(scope="session")
def commands() -> Callable[[Path], dict[str, list[object]]]:
    """The function `reading`."""
    return reading
