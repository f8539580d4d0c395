"""Stored ensembles: replaced as a whole, checked by digests, refused if damaged or out of date."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.atomic_write import temporary_beside
from ensemble_kit.errors import IntegrityError, RunLockedError
from ensemble_kit.evaluation.decisions.set_coverage import SetOptions
from ensemble_kit.evaluation.decisions.thresholds import ThresholdTarget
from ensemble_kit.evaluation.diversity.pareto_file import read_pareto
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs import ensemble_folder
from ensemble_kit.evaluation.runs.method_predictions import stored_predictions
from ensemble_kit.evaluation.runs.operating_point import DecisionOptions, operating_point
from ensemble_kit.evaluation.runs.prediction_sets import conformal_sets
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.report.content import gather
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_run

QUICK = Protocol(n_resamples=0)
METHODS = ["mean", "simplex"]


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = toy_run(tmp_path_factory.mktemp("toy") / "run", n_members=3)
    stack_run(run, METHODS, protocol=QUICK, costs={f"member{m}": 1.0 for m in range(3)})
    return run


@pytest.fixture
def run(stacked: Run, tmp_path: Path) -> Run:
    return Run(shutil.copytree(stacked.path, tmp_path / "run"))


def trained_again(run: Run, member: str = "member1") -> None:
    stored = run.store.read(member)
    run.store.write(member, dataclasses.replace(stored, oof=stored.oof * 1.01))


# -- damaged -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv", "combiner.json", "combiner.safetensors"])  # fmt: skip
def test_one_changed_digit_in_any_file_is_refused_by_name(run: Run, name: str) -> None:
    path = run.ensemble_dir("simplex") / name
    content = path.read_bytes()
    at = [m.start() for m in re.finditer(rb"\d", content)][-1]
    path.write_bytes(content[:at] + (b"1" if content[at : at + 1] != b"1" else b"2") + content[at + 1 :])  # fmt: skip
    for read in (lambda: stored_predictions(run, "simplex"), lambda: gather(run)):
        with pytest.raises(IntegrityError, match=re.escape(name)) as caught:
            read()
        assert caught.value.exit_code == 7


@pytest.mark.parametrize("name", ["metrics.json", "predictions.csv", "combiner.json"])
def test_a_missing_or_cut_file_is_refused_by_name(run: Run, name: str) -> None:
    path = run.ensemble_dir("simplex") / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(IntegrityError, match=re.escape(name)):
        gather(run)
    path.unlink()
    with pytest.raises(IntegrityError, match=re.escape(name)):
        gather(run)


def test_files_of_two_stacks_are_never_mixed(run: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    trained_again(other)
    stack_run(other, METHODS, protocol=QUICK)
    name = "predictions.csv"
    shutil.copy(other.ensemble_dir("mean") / name, run.ensemble_dir("mean") / name)
    with pytest.raises(IntegrityError, match=name):
        stored_predictions(run, "mean")


def test_swapped_folders_of_methods_are_refused(run: Run) -> None:
    folders = [run.ensemble_dir(name) for name in (*METHODS, "x")]
    folders[0].rename(folders[2])
    folders[1].rename(folders[0])
    folders[2].rename(folders[1])
    with pytest.raises(IntegrityError, match="'simplex'"):
        stored_predictions(run, "mean")


# -- out of date ---------------------------------------------------------------------------


def test_methods_of_changed_predictions_are_refused_with_the_member(run: Run) -> None:
    trained_again(run)
    for read in (
        lambda: conformal_sets(run, "mean", SetOptions()),
        lambda: operating_point(run, "mean", DecisionOptions(ThresholdTarget("youden"), "class1")),
    ):
        with pytest.raises(IntegrityError, match="member1"):
            read()


def test_changed_test_predictions_are_noticed(run: Run) -> None:
    stored = run.store.read("member2")
    test = {k: array + np.eye(3)[0] for k, array in stored.test.items()}
    run.store.write("member2", dataclasses.replace(stored, test=test))
    with pytest.raises(IntegrityError, match="member2"):
        stored_predictions(run, "mean")


def test_a_report_leaves_out_methods_of_other_predictions_and_names_them(run: Run) -> None:
    assert {"mean", "simplex"} <= set(gather(run).scores["method"])
    trained_again(run)
    stack_run(run, ["mean"], protocol=QUICK)
    content = gather(run)
    assert "simplex" not in set(content.scores["method"])
    assert {method for method, _ in content.predictions} == {"mean", "best-member"}
    assert any("simplex" in note and "member1" in note for note in content.notes)
    assert content.pareto.empty


def test_a_changed_table_of_costs_is_refused(run: Run) -> None:
    assert read_pareto(run, run.predictions()) is not None
    path = run.path / "ensembles" / "pareto.csv"
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(IntegrityError, match=r"pareto\.csv"):
        gather(run)


def test_ensembles_of_an_earlier_version_are_read_and_still_compared(run: Run) -> None:
    for path in run.ensemble_dir("mean").glob("*.json"):
        content = json.loads(path.read_text())
        for key in ("own_digest", "made_of", "files"):
            content.pop(key, None)
        path.write_text(json.dumps(content))
    assert stored_predictions(run, "mean").method == "mean"
    shutil.rmtree(run.path / "predictions" / "member1")
    with pytest.raises(IntegrityError, match="member1"):
        stored_predictions(run, "mean")


# -- replaced as a whole -------------------------------------------------------------------


def test_a_stack_that_is_cut_off_changes_no_method(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in (run.path / "ensembles").rglob("*.*") if p.is_file()}
    trained_again(run)
    n_saved = []

    def cut_off(*args: object, **_: object) -> None:
        n_saved.append(args)
        if len(n_saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ensemble_folder, "save_combiner", cut_off)
    with pytest.raises(KeyboardInterrupt):
        stack_run(run, METHODS, protocol=QUICK)
    after = {p: p.read_bytes() for p in (run.path / "ensembles").rglob("*.*") if p.is_file()}
    assert {p: b for p, b in after.items() if not p.name.startswith(".")} == {
        p: b for p, b in before.items() if not p.name.startswith(".")
    }


def test_prediction_sets_and_thresholds_are_removed_if_the_predictions_change(
    run: Run,
) -> None:
    folder = run.ensemble_dir("mean")
    conformal_sets(run, "mean", SetOptions(n_resamples=0))
    operating_point(
        run, "mean", DecisionOptions(ThresholdTarget("youden"), "class1", n_resamples=0)
    )
    (folder / "my notes.txt").write_text("mine")
    written = {"sets.csv", "sets.json", "decision.json"}
    stack_run(run, ["mean"], protocol=QUICK)
    assert written <= {p.name for p in folder.iterdir()}
    trained_again(run)
    stack_run(run, ["mean"], protocol=QUICK)
    assert not written & {p.name for p in folder.iterdir()}
    assert (folder / "my notes.txt").read_text() == "mine"


# -- one writer at a time ------------------------------------------------------------------


def test_row_7_a_second_writer_of_results_is_refused(run: Run) -> None:
    before = (run.ensemble_dir("mean") / "metrics.json").read_bytes()
    with run.writing_results():
        for write in (
            lambda: stack_run(run, ["mean"], protocol=QUICK),
            lambda: conformal_sets(run, "mean"),
            lambda: operating_point(
                run, "mean", DecisionOptions(ThresholdTarget("youden"), "class1")
            ),
        ):
            with pytest.raises(RunLockedError, match="process") as caught:
                write()
            assert caught.value.exit_code == 6
        stack_run(run, ["mean"], protocol=QUICK, write=False)
    assert (run.ensemble_dir("mean") / "metrics.json").read_bytes() == before


def test_results_can_be_written_during_a_training(run: Run) -> None:
    with run.locked():
        stack_run(run, ["mean"], protocol=QUICK)


def test_temporary_folders_of_killed_writers_are_removed(run: Run) -> None:
    mine = temporary_beside(run.ensemble_dir("mean"))
    dead = mine.with_name(re.sub(r"-\d+-", f"-{2**22 + 7}-", mine.name))
    shutil.copytree(run.ensemble_dir("mean"), dead)
    stack_run(run, ["mean"], protocol=QUICK)
    assert not dead.exists()
