"""A tuning that is killed or stopped by Ctrl-C several times loses and repeats no trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest

from ensemble_kit.run import Run
from ensemble_kit.tune.storage import open_storage
from ensemble_kit.tune.trials import CONTINUES, OUTCOME

# Sends a signal to itself after a given number of epochs.
SCRIPT = """
import os, signal, sys
from ensemble_kit.tune import objective
number, epoch = int(sys.argv.pop(1)), int(sys.argv.pop(1))
report, seen = objective._Epochs.report, []
def report_and_stop(self, *words):
    report(self, *words)
    seen.append(words)
    if len(seen) == epoch:
        os.kill(os.getpid(), number)
objective._Epochs.report = report_and_stop
from ensemble_kit.cli import main
main()
"""


@pytest.mark.dense
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_twenty_trials_survive_three_interruptions(
    slides: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = [
        "tune", "--data", slides, "--members", "tiny_cnn", "--image-size", 16, "--epochs", 2, "--folds", 2,
        "--no-pretrained", "--device", "cpu", "--run", "run", "--trials", 20,
    ]  # fmt: skip
    codes = []
    for epoch in (1, 9, 17, 0):  # the first one within the very first trial
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(int(number)), str(epoch), *map(str, words)],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, check=False,
        )  # fmt: skip
        codes.append(done.returncode)
    stopped = -signal.SIGKILL if number == signal.SIGKILL else 130
    assert codes == [stopped] * 3 + [0], done.stderr.decode()
    trials = optuna.load_study(
        study_name="tiny_cnn", storage=open_storage(Run(tmp_path / "run"))
    ).get_trials()
    assert [t.number for t in trials] == list(range(len(trials)))
    assert sum(OUTCOME in t.user_attrs for t in trials) == 20
    interrupted = [t for t in trials if t.state == optuna.trial.TrialState.FAIL]
    assert len(interrupted) == 3
    assert len(trials) == 23
    continued = Counter(t.user_attrs.get(CONTINUES) for t in trials)
    for lost in interrupted:
        assert continued[lost.number] == 1
