"""Killed at any moment: nothing finished is lost, and the end is that of an undisturbed run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("harness.py")


def harness(*arguments: object) -> dict:
    done = subprocess.run(
        [sys.executable, str(HARNESS), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_row_1_thirty_seeded_sigkills_end_with_the_digests_of_an_undisturbed_run(
    slides: Path, tmp_path: Path
) -> None:
    out = harness("kills", slides, tmp_path, 30, 7)
    assert out["killed"] == 30
    assert out["n_files"] >= 16
    assert out["unequal"] == []


@pytest.mark.slow
def test_row_3_death_at_every_write_point_loses_nothing(slides: Path, tmp_path: Path) -> None:
    out = harness("points", slides, tmp_path)
    assert out["died"] == out["points"], "a write point was never reached"
    assert out["unequal"] == []
