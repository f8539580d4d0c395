"""Nested cross-validation of a run: `stack --nested`, `compare` and the report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.combiners import make_combiner
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.compare import compare
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.evaluation.tables.leaderboard import leaderboard
from ensemble_kit.report import write_report
from ensemble_kit.testing import toy_run

pytestmark = pytest.mark.slow

QUICK = Protocol(n_resamples=200)


@pytest.fixture
def nested_run(tmp_path: Path):
    """A toy run whose members have models without each pair of folds too."""
    run = toy_run(tmp_path / "run", n_members=3)
    fold = run.folds().of(run.manifest().part("train"))
    for m, name in enumerate(run.members()):
        stored = run.store.read(name)
        noise = np.random.default_rng(m).normal(size=(4, *stored.oof.shape))
        array = (stored.oof + 0.5 * noise).astype(np.float32)
        array[fold, np.arange(len(fold))] = np.nan
        about = {**stored.about, "pairs_done": ["0-1", "0-2", "0-3", "1-2", "1-3", "2-3"]}
        run.store.write(name, dataclasses.replace(stored, about=about, nested=array))
    return run


def test_stack_writes_and_shows_the_nested_metrics(nested_run, cli) -> None:
    done = stack_run(nested_run, ["logistic"], protocol=QUICK, nested=True)
    for name, one in done.evaluations.items():
        stored = json.loads((nested_run.ensemble_dir(name) / "metrics.json").read_text())
        assert one.nested is not None
        assert stored["nested"]["accuracy"] == dataclasses.asdict(one.nested["accuracy"])
        assert stored["nested"]["n"] == len(done.oof)
        difference = stored["cross_fitted"]["accuracy"]["value"] - stored["nested"]["accuracy"]["value"]  # fmt: skip
        assert stored["cross_fitted_minus_nested"]["accuracy"]["value"] == pytest.approx(difference)
        assert "recognition_rate" in stored["nested"]["per_group"]
        parts = [v["part"] for v in stored["verdicts"]]
        assert parts.count("nested") == {"logistic": 2, "mean": 1}.get(name, 0)
    sentence = done.nested_verdict
    a, b = (done.evaluations[n].nested["balanced_accuracy"].value for n in ("logistic", "best-member"))  # fmt: skip
    assert f"balanced accuracy {a:.3f} against {b:.3f}" in sentence
    assert ", nested)" in sentence
    head, *rows = leaderboard(done.evaluations, QUICK)
    assert head[1:6] == ("in-sample", "cross-fitted", "nested", "cross-fitted - nested", "test")  # fmt: skip
    assert all(len(row) == len(head) for row in rows)
    assert any("2 of 4 folds" in note for note in done.notes)
    code, printed = cli("stack", "--nested", "--method", "greedy", "--resamples", 50, "--verbose", "--run", nested_run.path)  # fmt: skip
    assert code == 0
    assert "cross-fitted - nested" in printed
    assert "rate: nested" in printed
    assert "Nested cross-validation: greedy is " in printed
    code, printed = cli("report", "--run", nested_run.path)
    page = (nested_run.report_dir / "index.html").read_text()
    assert "<summary>Nested cross-validation</summary>" in page
    assert "nested: n = " in page
    assert ", nested)." in page


def test_without_nested_nothing_of_it_is_written_or_shown(nested_run) -> None:
    done = stack_run(nested_run, ["logistic"], protocol=QUICK)
    stored = json.loads((nested_run.ensemble_dir("logistic") / "metrics.json").read_text())
    assert stored["nested"] is None
    assert stored["cross_fitted_minus_nested"] is None
    assert done.nested_verdict == ""
    assert not any("nested" in cell for cell in leaderboard(done.evaluations, QUICK)[0])
    assert "Nested cross-validation" not in write_report(nested_run).read_text()


def test_compare_has_the_part_nested(nested_run) -> None:
    scores = compare(
        {"greedy": make_combiner("greedy")},
        fit_on=nested_run.predictions(),
        score_on=nested_run.predictions("test"),
        nested=nested_run.nested_predictions(),
        protocol=QUICK,
    )
    assert set(scores["part"]) == {"in_sample", "cross_fitted", "nested", "test"}


def test_a_run_without_the_pairs_is_refused_with_what_is_missing(tmp_path: Path, cli) -> None:
    run = toy_run(tmp_path / "run", n_members=2)
    code, printed = cli("stack", "--nested", "--run", run.path)
    assert code == 3
    assert "'member0' lacks 0-1, 0-2, 0-3" in printed
    assert "train-members --nested --run" in printed
    assert not list((run.path / "ensembles").glob("[!.]*"))
    two = toy_run(tmp_path / "two", n_members=2, n_folds=2)
    code, printed = cli("stack", "--nested", "--run", two.path)
    assert code == 3
    assert "2 folds" in printed


def test_nested_cross_validation_refuses_a_quorum(nested_run) -> None:
    with pytest.raises(UsageError, match=r"quorum.*2"):
        stack_run(nested_run, ["mean"], quorum=2, nested=True)
