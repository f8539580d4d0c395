"""After kills at any moment, finished work is not lost and the results equal an undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.run import Run

HERE = Path(__file__).parent
DENSE = pytest.mark.dense


def harness(*arguments: object, script: str = "harness.py") -> dict:
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("n_kills", [12, pytest.param(60, marks=DENSE)])
def test_row_1_after_random_sigkills_the_digests_equal_an_undisturbed_run(
    slides: Path, tmp_path: Path, n_kills: int
) -> None:
    out = harness("kills", slides, tmp_path, n_kills, 7)
    assert out["killed"] == n_kills
    assert out["n_files"] >= 16
    assert out["unequal"] == []


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=DENSE)])
def test_row_3_after_a_kill_at_every_write_the_digests_equal_an_undisturbed_run(
    slides: Path, tmp_path: Path, step: int
) -> None:
    out = harness("points", slides, tmp_path, step)
    assert out["died"] == out["points"]
    assert out["unequal"] == []


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=DENSE)])
def test_row_3_after_a_kill_of_a_command_the_results_are_all_old_or_all_new(
    tmp_path: Path, step: int
) -> None:
    out = harness(tmp_path, step, script="commands_harness.py")
    assert out["points"].keys() == {"stack", "conformal", "operating-point"}
    assert min(out["points"].values()) > 0
    assert out["faults"] == []


@pytest.mark.slow
def test_row_47_trials_of_a_killed_tuner_continue_with_the_same_values(
    slides: Path, tmp_path: Path
) -> None:
    out = harness("tuning", slides, tmp_path)
    assert out["codes"] == [-9, -9, 0]
    assert out["states"] == ["FAIL", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    first, again, third, once_more, _ = out["values"]
    assert first == again == out["requested"]
    assert third == once_more
    assert out["best"] in [{}, *out["values"]]


def test_row_49_a_second_tuner_of_a_run_is_refused_and_the_study_can_be_continued(
    cli: Any, slides: Path, tmp_path: Path
) -> None:
    words = [
        "tune", "--data", slides, "--members", "tiny_cnn", "--folds", 2, "--image-size", 16,
        "--epochs", 1, "--no-pretrained", "--device", "cpu", "--run", tmp_path / "run",
    ]  # fmt: skip
    assert cli(*words, "--trials", 1)[0] == 0
    study = (tmp_path / "run/tuned/studies.db").read_bytes()
    with Run(tmp_path / "run").locked():
        code, printed = cli(*words, "--trials", 2)
        assert (code, f"process {os.getpid()} " in printed) == (6, True), printed
        assert (tmp_path / "run/tuned/studies.db").read_bytes() == study
    code, printed = cli(*words, "--trials", 2)
    assert code == 0, printed
    assert printed.count("tiny_cnn 2 of 2: ") == 1
    assert "tiny_cnn 1 of 2: " not in printed
