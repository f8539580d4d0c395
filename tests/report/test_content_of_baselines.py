"""The report of a run whose stored methods are baselines only, or come from an earlier version."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.report import page
from ensemble_kit.report.content import gather
from ensemble_kit.testing import toy_run

QUICK = Protocol(n_resamples=50)


def test_the_figures_of_a_run_with_baselines_only_show_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = toy_run(tmp_path / "toy")
    stack_run(run, ["mean"], protocol=QUICK)
    content = gather(run)
    monkeypatch.setattr(type(content), "ranking", ["best-member", "mean"])  # the best value first
    assert content.chosen == "mean"


def test_a_permutation_test_of_an_earlier_version_is_shown(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "toy")
    done = stack_run(run, ["vote"], protocol=QUICK, permutation_draws=2)
    assert done.permutation is not None
    folder = run.path / "ensembles"
    (folder / "permutation-test.json").rename(folder / "null-check.json")
    assert done.permutation.sentence in page.write_report(run).read_text()
