"""Imported predictions: order of classes, errors, and nothing is written before all checks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ensemble_kit.arrays import softmax
from ensemble_kit.cli import app
from ensemble_kit.errors import DataError, IntegrityError, RunLockedError, UsageError
from ensemble_kit.evaluation.diversity.inference_cost import member_costs
from ensemble_kit.evaluation.imports.import_predictions import import_predictions
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.predictions.store import MemberLogits
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_predictions

CLASSES = ("low", "mid", "high")
QUICK = Protocol(n_resamples=20)


def call(*args: str):
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


def labels_of(folder: Path, *, n_groups: int = 12, fold: bool = True) -> Path:
    table = toy_predictions(90, 2, 3, n_groups=n_groups)
    frame = pd.DataFrame(
        {
            "sample_id": table.sample_ids,
            "label": np.array(CLASSES)[table.labels],
            "group": table.groups,
        }
    )
    if fold:
        frame["fold"] = table.fold
    frame.to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def member_of(folder: Path, name: str, m: int = 0, *, n_groups: int = 12) -> pd.DataFrame:
    table = toy_predictions(90, 2, 3, n_groups=n_groups)
    frame = pd.DataFrame(softmax(table.logits[:, m]), columns=list(CLASSES))
    frame.insert(0, "sample_id", table.sample_ids)
    frame.to_csv(folder / f"{name}.csv", index=False)
    return frame


# -- the order of the classes --------------------------------------------------------------


def test_ordered_classes_keep_the_order_given_and_have_ordinal_metrics(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    run = import_predictions(
        Run(tmp_path / "run"),
        labels,
        {"a": tmp_path / "a.csv"},
        class_names=CLASSES,
        ordinal=True,
    )
    oof = run.predictions()
    assert (oof.class_names, oof.ordinal) == (CLASSES, True)
    assert np.array_equal(oof.labels, toy_predictions(90, 2, 3, n_groups=12).labels)
    done = stack_run(run, ["vote"], protocol=QUICK)
    assert "quadratic_weighted_kappa" in done.evaluations["vote"].cross_fitted.metrics


def test_the_command_prints_the_most_severe_class_and_the_class_order(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    args = ["import-predictions", f"a={tmp_path}/a.csv", "--labels", str(labels), "--run"]
    printed = call(*args, str(tmp_path / "sorted")).output
    assert "Classes: high, low, mid (sorted by name; another order: --classes A,B)" in printed
    assert "The last, mid, " in printed
    printed = call(*args, str(tmp_path / "run"), "--classes", "low,mid,high", "--ordinal").output
    assert "low, mid, high (in the order given). The last, high," in printed
    shown = call("stack", "--run", str(tmp_path / "run"), "--method", "vote", "--resamples", "20",
                "--verbose")  # fmt: skip
    assert "low < mid < high" in shown.output
    with pytest.raises(UsageError, match="--classes 0,1"):
        call(*args, str(tmp_path / "b"), "--ordinal")


def test_ordinal_metrics_without_a_known_order_have_a_caveat(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    run = import_predictions(Run(tmp_path / "run"), labels, {"a": tmp_path / "a.csv"})
    ordinal = Protocol(metric="quadratic_weighted_kappa", n_resamples=0)
    notes = stack_run(run, ["vote"], protocol=ordinal, write=False).notes
    assert any("high, low, mid" in note for note in notes)
    assert not any("high, low, mid" in n for n in stack_run(run, ["vote"], protocol=QUICK).notes)


def test_a_run_does_not_change_whether_its_classes_are_ordered(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    files = {"a": tmp_path / "a.csv"}
    import_predictions(Run(tmp_path / "run"), labels, files, class_names=CLASSES)
    with pytest.raises(DataError, match=r"run'.*--run"):
        import_predictions(Run(tmp_path / "run"), labels, files, class_names=CLASSES, ordinal=True)


# -- nothing is written before all was checked ---------------------------------------------


def test_a_refused_import_leaves_no_run_and_the_corrected_one_succeeds(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    frame = member_of(tmp_path, "a")
    member_of(tmp_path, "b", 1)
    frame.iloc[1:].to_csv(tmp_path / "short.csv", index=False)
    run = Run(tmp_path / "run")
    with pytest.raises(DataError, match=r"'b' lacks 1 id \(oof-0\)"):
        import_predictions(run, labels, {"a": tmp_path / "a.csv", "b": tmp_path / "short.csv"})
    assert not run.path.exists()
    table = pd.read_csv(labels, dtype=str)
    table.loc[0, "label"] = "high"
    table.to_csv(labels, index=False)
    import_predictions(run, labels, {"a": tmp_path / "a.csv", "b": tmp_path / "b.csv"})
    assert run.members() == ["a", "b"]


# -- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["proba", "logits"])
def test_an_unknown_column_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    labels = labels_of(tmp_path)
    frame = member_of(tmp_path, "a")
    frame.assign(normal=0.5).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="'normal'"):
        import_predictions(Run(tmp_path / "run"), labels, {"a": tmp_path / "a.csv"}, kind=kind)


def test_ids_that_repeat_or_are_unknown_are_named(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    frame = member_of(tmp_path, "a")
    extra = frame.iloc[:1].assign(sample_id="stranger")
    pd.concat([frame, frame.iloc[-1:], extra]).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"'a' repeats 1 id \(oof-89\), adds 1 id \(stranger\)"):
        import_predictions(Run(tmp_path / "run"), labels, {"a": tmp_path / "a.csv"})


def test_a_name_given_twice_a_path_as_a_name_and_a_missing_file_are_refused(
    tmp_path: Path,
) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    args = ["import-predictions", "--labels", str(labels), "--run", str(tmp_path / "run")]
    with pytest.raises(UsageError, match=r"'a' .* 2 times"):
        call(*args, f"a={tmp_path}/a.csv", f"a={tmp_path}/a.csv")
    with pytest.raises(DataError, match=r"'\.\./a'"):
        call(*args, f"../a={tmp_path}/a.csv")
    with pytest.raises(DataError) as caught:
        call(*args, f"a={tmp_path}/none.csv")
    assert str(caught.value).count("none.csv") == 1
    assert not (tmp_path / "run").exists()


def test_probabilities_taken_for_logits_have_a_caveat(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    frame = member_of(tmp_path, "a")
    run = import_predictions(
        Run(tmp_path / "run"), labels, {"a": tmp_path / "a.csv"}, kind="logits"
    )
    assert any("a: imported as logits" in note for note in run.predictions().notes)
    values = frame[list(CLASSES)] * 3 - 1
    frame.assign(**{c: values[c] for c in CLASSES}).to_csv(tmp_path / "a.csv", index=False)
    raw = import_predictions(
        Run(tmp_path / "raw"), labels, {"a": tmp_path / "a.csv"}, kind="logits"
    )
    assert not any("imported as logits" in note for note in raw.predictions().notes)


def test_advice_on_invalid_folds_names_the_column(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    table = pd.read_csv(labels, dtype=str)
    files = {"a": tmp_path / "a.csv"}
    table.assign(fold=table["fold"].replace("1", "9")).to_csv(labels, index=False)
    with pytest.raises(DataError, match="column fold") as caught:
        import_predictions(Run(tmp_path / "run"), labels, files)
    assert "make_folds" not in str(caught.value)
    table.assign(fold=[str(i % 4) for i in range(len(table))]).to_csv(labels, index=False)
    with pytest.raises(DataError, match=r"column fold"):
        import_predictions(Run(tmp_path / "run"), labels, files)
    table.assign(fold=table["fold"].replace("1", "one")).to_csv(labels, index=False)
    with pytest.raises(DataError, match=r"first: 'one' for '.+'"):
        import_predictions(Run(tmp_path / "run"), labels, files)
    table.assign(split="test").to_csv(labels, index=False)
    with pytest.raises(DataError, match=r"All 90 rows .*'test'"):
        import_predictions(Run(tmp_path / "run"), labels, files)


# -- what is accepted ----------------------------------------------------------------------


def test_folds_that_pandas_wrote_beside_empty_cells_are_whole_numbers(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    table = pd.read_csv(labels, dtype=str)
    files = {"a": tmp_path / "a.csv"}
    plain = import_predictions(Run(tmp_path / "plain"), labels, files).folds()
    table.assign(fold=table["fold"] + ".0").to_csv(labels, index=False)
    again = import_predictions(Run(tmp_path / "again"), labels, files).folds()
    assert again.fold.tolist() == plain.fold.tolist()


def test_caveats_that_members_share_are_one_note(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    member_of(tmp_path, "b", 1)
    files = {name: tmp_path / f"{name}.csv" for name in "ab"}
    run = import_predictions(Run(tmp_path / "run"), labels, files)
    notes = [note for note in run.predictions().notes if "imported" in note]
    assert notes == ["a, b: imported. The run cannot check that its predictions are out-of-fold."]


def test_few_groups_are_assigned_to_as_many_folds(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, n_groups=3, fold=False)
    member_of(tmp_path, "a", n_groups=3)
    run = import_predictions(Run(tmp_path / "run"), labels, {"a": tmp_path / "a.csv"})
    assert run.folds().n_splits == 3


def test_members_that_lack_rows_are_combined_under_a_quorum(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    frame = member_of(tmp_path, "b", 1)
    table = toy_predictions(90, 2, 3, n_groups=12)
    frame[table.fold != 2].to_csv(tmp_path / "b.csv", index=False)
    files = {name: tmp_path / f"{name}.csv" for name in "ab"}
    run = import_predictions(Run(tmp_path / "run"), labels, files, partial=True)
    with pytest.raises(DataError, match=r"'b' lacks fold 2.*stack --quorum"):
        stack_run(run, ["mean"], protocol=QUICK)
    done = stack_run(run, ["mean"], protocol=QUICK, quorum=1)
    rows = table.fold == 2
    np.testing.assert_allclose(
        done.evaluations["mean"].oof_combined.proba[rows],
        softmax(table.logits[rows, 0])[:, [2, 0, 1]],
        atol=1e-5,
    )


def test_a_missing_test_row_makes_every_fold_incomplete(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    frame = member_of(tmp_path, "a")
    table = pd.read_csv(labels, dtype=str)
    last = table["group"] == table["group"].iloc[-1]
    table["split"] = np.where(last, "test", "train")
    table.to_csv(labels, index=False)
    frame.iloc[:-1].to_csv(tmp_path / "a.csv", index=False)
    run = import_predictions(Run(tmp_path / "run"), labels, {"a": tmp_path / "a.csv"}, partial=True)
    assert run.store.read("a").about["folds_done"] == []
    with pytest.raises(DataError, match="'a' lacks fold"):
        run.predictions("test")


def test_costs_of_members_come_from_a_table(tmp_path: Path) -> None:
    labels = labels_of(tmp_path)
    member_of(tmp_path, "a")
    member_of(tmp_path, "b", 1)
    files = {name: tmp_path / f"{name}.csv" for name in "ab"}
    (tmp_path / "costs.csv").write_text("\ufeffMember;ms_per_image\nb;2,5\na;4;\n")
    run = import_predictions(Run(tmp_path / "run"), labels, files, costs=tmp_path / "costs.csv")
    assert member_costs(run, ["a", "b"], "ms_per_image") == {"a": 4.0, "b": 2.5}
    for text, named in (
        ("member,ms\na,1\n", "member, ms"),
        ("member,gmacs\nc,1\n", "costs.csv"),
        ("member,gmacs\na,x\n", "'x'"),
    ):
        (tmp_path / "costs.csv").write_text(text)
        with pytest.raises(DataError, match=named):
            import_predictions(Run(tmp_path / "other"), labels, files, costs=tmp_path / "costs.csv")


# -- interrupted imports -------------------------------------------------------------------


def imported_twice(tmp_path: Path) -> tuple[Run, Path, dict[str, Path]]:
    labels, files = labels_of(tmp_path), {}
    for m, name in enumerate("ab"):
        member_of(tmp_path, name, m)
        files[name] = tmp_path / f"{name}.csv"
    return import_predictions(Run(tmp_path / "run"), labels, files), labels, files


def test_an_import_that_is_cut_off_is_not_mixed_with_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, labels, files = imported_twice(tmp_path)
    write = run.store.write

    def cut_off(member: str, logits: MemberLogits) -> None:
        if member == "b":
            raise KeyboardInterrupt
        write(member, logits)

    monkeypatch.setattr(run.store, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        import_predictions(run, labels, files)
    with pytest.raises(IntegrityError, match="import"):
        Run(run.path).predictions()
    monkeypatch.undo()
    import_predictions(run, labels, files)
    assert run.predictions().member_names == ("a", "b")


def test_an_import_is_refused_while_another_process_writes_in_the_run(tmp_path: Path) -> None:
    run, labels, files = imported_twice(tmp_path)
    for lock in (run.locked, run.writing_results):
        with lock(), pytest.raises(RunLockedError, match="process"):
            import_predictions(Run(run.path), labels, files)


def test_an_imported_member_that_is_lost_is_named(tmp_path: Path) -> None:
    run, _, _ = imported_twice(tmp_path)
    shutil.rmtree(run.path / "predictions" / "b")
    assert any("b" in note.split(": ")[-1] for note in run.predictions().notes if "Not in" in note)
