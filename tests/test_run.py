"""The run folder: one manifest, one set of folds, locked by one process; predictions and caveats."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError, IntegrityError, RunLockedError
from ensemble_kit.files import read_json
from ensemble_kit.folds import Folds, make_folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import Run
from ensemble_kit.run import lock as hold
from ensemble_kit.run.records import folds_as_made
from ensemble_kit.testing import toy_run

COLUMNS = ("sample_id", "path", "label", "group", "split", "sha256")


def records() -> list[tuple[str, ...]]:
    return [
        (f"s{i}", f"s{i}.png", "ab"[i // 4 % 2], f"p{i // 2}", "test" if i > 15 else "train", f"d{i}")
        for i in range(20)
    ]  # fmt: skip


def made(rows: list[tuple[str, ...]]) -> Manifest:
    return Manifest.from_records(rows, columns=COLUMNS, group_kind="patient")


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Run, Manifest, Folds]:
    manifest = made(records())
    folds = make_folds(manifest, 2)
    run = Run(tmp_path / "run")
    run.begin(manifest, folds, {"seed": 0, "recipe": {"epochs": 2}})
    return run, manifest, folds


def with_a_job(run: Run) -> Run:
    run.fold_dir("tiny_cnn", 0).mkdir(parents=True)
    return run


# -- manifest, folds and record ------------------------------------------------------------


def test_a_run_returns_its_manifest_and_folds(
    begun: tuple[Run, Manifest, Folds],
) -> None:
    run, manifest, folds = begun
    again = Run(run.path)
    assert again.manifest().digest == manifest.digest
    assert again.manifest().about() == manifest.about()
    assert again.folds().digest == folds.digest
    assert again.folds().of(again.manifest().part("train")).tolist() == folds.fold.tolist()


def test_the_record_holds_versions_and_digests(begun: tuple[Run, Manifest, Folds]) -> None:
    record = read_json(begun[0].path / "run.json")
    assert record["schema_version"] == 1
    assert record["digests"] == {"manifest": begun[1].digest, "folds": begun[2].digest}
    assert {"python", "torch", "numpy", "ensemble-kit"} <= set(record["versions"])
    assert record["folds"]["n_splits"] == 2


def test_the_record_holds_the_absolute_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "data").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    manifest = dataclasses.replace(made(records()), root=Path("data"))
    run = Run(tmp_path / "run")
    run.begin(manifest, make_folds(manifest, 2), {})
    assert run.record["data_folder"] == str(tmp_path / "here" / "data")
    assert run.manifest().about() == manifest.about()
    monkeypatch.chdir(tmp_path / "there")
    assert run.manifest().root == tmp_path / "here" / "data"
    run.begin(manifest, make_folds(manifest, 2), {})
    old = {k: v for k, v in run.record.items() if k != "data_folder"}
    write_checked(run.path / "run.json", old)
    assert run.manifest().about() == manifest.about()


def test_the_record_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = made(records())
    run = Run(tmp_path / "run")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ensemble_kit.run.folder.write_checked", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.begin(manifest, make_folds(manifest, 2), {})
    assert not run.exists
    assert {p.name for p in run.path.iterdir()} == {"manifest.csv", "folds.csv", "config.toml"}
    monkeypatch.undo()
    run.begin(manifest, make_folds(manifest, 2), {})
    assert run.exists


def test_beginning_twice_with_the_same_data_changes_nothing(
    begun: tuple[Run, Manifest, Folds],
) -> None:
    run, manifest, folds = begun
    before = {p.name: p.read_bytes() for p in run.path.iterdir()}
    run.begin(manifest, folds, {"seed": 1})
    assert {p.name: p.read_bytes() for p in run.path.iterdir()} == before
    run.keep_config({"seed": 1})
    after = {p.name: p.read_bytes() for p in run.path.iterdir()}
    assert {n for n in after if after[n] != before[n]} == {"config.toml"}


@pytest.mark.parametrize(
    ("row", "column", "value", "printed"),
    [
        (3, 5, "other", r"the pixels \(sha256\) of 1 image changed \(s3\)"),
        (3, 2, "b", r"the label of 1 image changed \(s3\)"),
        (3, 3, "p0", r"the group of 1 image changed \(s3\)"),
        (3, 0, "new", r"1 image is missing \(s3\) and 1 is new \(new\)"),
    ],
)
def test_other_data_are_refused_with_the_difference(
    begun: tuple[Run, Manifest, Folds], row: int, column: int, value: str, printed: str
) -> None:
    rows = [list(r) for r in records()]
    rows[row][column] = value
    other = made([tuple(r) for r in rows])
    with pytest.raises(DataError, match=printed) as caught:
        with_a_job(begun[0]).begin(other, make_folds(other, 2), {})
    assert caught.value.exit_code == 3
    assert Run(begun[0].path).manifest().digest == begun[1].digest


def test_images_that_changed_the_split_are_reported(begun: tuple[Run, Manifest, Folds]) -> None:
    rows = [(*r[:4], "train" if r[3] == "p8" else r[4], r[5]) for r in records()]
    other = made(rows)
    with pytest.raises(DataError, match=r"the split of 2 images changed \(s16, s17\)"):
        with_a_job(begun[0]).begin(other, make_folds(other, 2), {})


def test_other_folds_are_refused(begun: tuple[Run, Manifest, Folds]) -> None:
    run, manifest, _ = begun
    with pytest.raises(DataError, match="has 2 folds by group"):
        with_a_job(run).begin(manifest, make_folds(manifest, 3), {})


def test_a_run_without_results_is_made_again_from_other_data(
    begun: tuple[Run, Manifest, Folds],
) -> None:
    run, other = begun[0], made([r for r in records() if r[0] != "s3"])
    folds = make_folds(other, 2)
    run.begin(other, folds, {"seed": 1})
    assert (run.manifest().digest, run.folds().digest) == (other.digest, folds.digest)
    assert "seed = 1" in (run.path / "config.toml").read_text()


@pytest.mark.parametrize(
    "name", ["members/a", "predictions/a", "tuned/a.json", "replaced/a-1", "ensembles/mean", "report/x"]
)  # fmt: skip
def test_a_run_with_results_refuses_other_data(
    begun: tuple[Run, Manifest, Folds], name: str
) -> None:
    run, manifest, _ = begun
    (run.path / name).mkdir(parents=True)
    with pytest.raises(DataError, match="1 image is"):
        run.begin(made(records()[1:]), make_folds(made(records()[1:]), 2), {})
    assert run.manifest().digest == manifest.digest


def test_given_folds_keep_the_split_kind_of_their_run(tmp_path: Path) -> None:
    manifest = made(records())
    folds = make_folds(manifest, 2)
    assert folds_as_made(tmp_path / "run", folds, "image").split_by == "group"
    Run(tmp_path / "run").begin(manifest, folds_as_made(tmp_path, folds, "group"), {})
    assert folds_as_made(tmp_path / "run", folds, "image").split_by == "group"
    old = Folds(folds.sample_ids, folds.fold, "image")
    Run(tmp_path / "old").begin(manifest, old, {})
    assert folds_as_made(tmp_path / "old", folds, "image").digest == old.digest
    assert folds_as_made(tmp_path / "old", folds, "group").split_by == "group"


def test_folds_that_split_a_patient_are_refused(tmp_path: Path) -> None:
    manifest = made(records())
    train = manifest.part("train")
    image_folds = Folds(train.sample_ids, np.arange(len(train)) % 2)
    with pytest.raises(DataError):
        Run(tmp_path / "run").begin(manifest, image_folds, {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["manifest.csv", "folds.csv"])
def test_a_changed_table_is_an_integrity_error_that_names_it(
    begun: tuple[Run, Manifest, Folds], name: str
) -> None:
    path = begun[0].path / name
    text = path.read_text()
    path.write_text(
        text.replace(",a,", ",b,", 1) if "label" in text else text.replace(",0\n", ",1\n", 1)
    )
    with pytest.raises(IntegrityError, match=name) as caught:
        begun[0].manifest() if name == "manifest.csv" else begun[0].folds()
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("name", ["manifest.csv", "folds.csv"])
def test_a_damaged_table_is_reported_by_a_resumed_training(tmp_path: Path, name: str) -> None:
    manifest = made(records())
    folds = make_folds(manifest, 2)
    run = Run(tmp_path / "run")
    run.begin(manifest, folds, {})
    run.begin(manifest, folds, {})
    table = run.path / name
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[-1]]) + "\n")  # a duplicate id cannot be read
    for read in (
        lambda: run.begin(manifest, folds, {}),
        run.manifest if "man" in name else run.folds,
    ):
        with pytest.raises(IntegrityError, match=name):
            read()


def test_members_are_read_from_their_folders_without_the_list(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    for name in ("b", "a"):
        (run.member_dir(name)).mkdir(parents=True)
        (run.member_dir(name) / "member.json").write_text("{}")
    assert run.requested_members() == ["a", "b"]
    (run.path / "members.json").write_text('["b", "a"]')
    assert run.requested_members() == ["b", "a"]


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match="/run'"):
        Run(tmp_path / "run").record


def test_results_of_a_missing_run_create_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError), Run(tmp_path / "run").writing_results():
        pass
    assert not (tmp_path / "run").exists()


def test_a_newer_layout_is_refused(begun: tuple[Run, Manifest, Folds]) -> None:
    path = begun[0].path / "run.json"
    write_checked(path, {**json.loads(path.read_text()), "schema_version": 2})
    with pytest.raises(DataError):
        begun[0].record


# -- the lock ------------------------------------------------------------------------------


def test_row_8_heartbeat_files_below_a_dead_one_are_released_in_the_same_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, beating = tmp_path / "members" / "a" / "fold-0", tmp_path / "members" / "a" / "fold-1"
    claim = {"pid": 7, "host": "beta", "place": "beta", "started": "", "token": "t", "beat": "0"}
    for folder in (tmp_path, silent, beating):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".claim").write_text(json.dumps(claim))
    monkeypatch.setattr(hold, "HEARTBEAT_SECONDS", 0.02)
    beats = itertools.count()

    def sleep(_: float) -> None:
        (beating / ".claim").write_text(json.dumps(claim | {"beat": str(next(beats))}))

    monkeypatch.setattr(hold.time, "sleep", sleep)
    with hold.held(tmp_path):
        assert hold.read_holder(silent) is None
        assert hold.read_holder(beating) is not None


def test_a_second_process_is_refused_with_the_name_of_the_one_that_locks_the_run(
    tmp_path: Path,
) -> None:
    code = (
        "import sys\nfrom ensemble_kit.errors import RunLockedError\nfrom ensemble_kit.run import Run\n"
        "try:\n    with Run(sys.argv[1]).locked(): pass\n"
        "except RunLockedError as error:\n    print(error); sys.exit(error.exit_code)\n"
    )

    def second() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path / "run")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with Run(tmp_path / "run").locked():
        refused = second()
    assert refused.returncode == 6
    assert f"process {os.getpid()} on {os.uname().nodename}" in refused.stdout
    assert second().returncode == 0


def test_a_second_thread_of_the_same_process_is_refused_too(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    caught: list[BaseException] = []

    def second() -> None:
        try:
            with Run(tmp_path / "run").locked():
                pass
        except RunLockedError as error:
            caught.append(error)

    with run.locked():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(caught) == 1


def test_an_error_inside_releases_the_lock(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), run.locked():
        1 / 0
    with run.locked():
        pass
    assert not (run.path / ".claim").exists()


# -- predictions ---------------------------------------------------------------------------


def test_predictions_have_the_stored_logits_labels_groups_and_folds(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run")
    manifest, folds = run.manifest(), run.folds()
    oof = run.predictions("oof")
    train = manifest.part("train")
    assert oof.sample_ids.tolist() == train.sample_ids.tolist()
    assert oof.labels.tolist() == train.labels.tolist()
    assert oof.groups.tolist() == train.groups.tolist()
    assert oof.fold.tolist() == folds.of(train).tolist()
    for m, name in enumerate(oof.member_names):
        stored = np.load(run.path / "predictions" / name / "oof.npy")
        assert np.array_equal(oof.logits[:, m], stored)


def test_test_predictions_are_the_mean_of_the_fold_models_logits(trained: Any) -> None:
    table = trained.run.predictions("test")
    for m, name in enumerate(table.member_names):
        folder = trained.run.path / "predictions" / name
        parts = [np.load(folder / f"test-fold-{k}.npy") for k in range(3)]
        assert not np.array_equal(parts[0], parts[1])
        np.testing.assert_allclose(table.logits[:, m], np.mean(parts, axis=0), rtol=1e-6)
    assert set(table.fold.tolist()) == {-1}


def test_members_are_in_the_order_of_the_requests(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_members=3)
    (run.path / "members.json").write_text('["member2", "member0", "gone"]')
    assert run.members() == ["member2", "member0", "member1"]
    assert run.predictions("oof").member_names == ("member2", "member0", "member1")


def test_a_run_without_predictions_is_an_error_with_advice(
    begun: tuple[Run, Manifest, Folds],
) -> None:
    with pytest.raises(DataError, match="train-members"):
        begun[0].predictions("oof")


def test_an_unfinished_member_is_refused_without_partial(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_folds=4)
    index = run.path / "predictions" / "member1" / "index.json"
    about = json.loads(index.read_text())
    about["made_of"]["folds_done"] = [0, 1, 3]
    write_checked(index, about)
    with pytest.raises(DataError, match="'member1' lacks fold 2"):
        run.predictions("oof")
    assert run.predictions("oof", partial=True).n_members == 4


@pytest.mark.parametrize("key", ["manifest", "folds"])
def test_predictions_of_another_manifest_or_other_folds_are_refused(
    tmp_path: Path, key: str
) -> None:
    run = toy_run(tmp_path / "run")
    index = run.path / "predictions" / "member1" / "index.json"
    about = json.loads(index.read_text())
    about["made_of"][key] = "another"
    write_checked(index, about)
    with pytest.raises(IntegrityError, match="'member1'"):
        run.predictions("oof")


def test_a_split_by_image_is_the_first_caveat(tmp_path: Path) -> None:
    manifest = made(records())
    run = Run(tmp_path / "run")
    run.begin(manifest, make_folds(manifest, 2, by="image"), {})
    assert run.notes()[0].startswith("Split by image")


def test_a_member_is_moved_to_replaced(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_members=2)
    (run.fold_dir("member0", 0)).mkdir(parents=True)
    (run.fold_dir("member0", 0) / "fold.json").write_text("{}")
    first = run.set_aside("member0")
    assert (first / "members" / "fold-0" / "fold.json").is_file()
    assert (first / "predictions" / "oof.npy").is_file()
    assert run.members() == ["member1"]
    assert run.set_aside("member0") != first


# -- missing, damaged and older records ----------------------------------------------------


def test_members_without_predictions_are_named_beside_every_result(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_members=3)
    assert not any("member2" in note for note in run.predictions("oof").notes)
    run.remember(["member0", "member1", "member2", "late"])
    shutil.rmtree(run.path / "predictions" / "member2")
    for kind in ("oof", "test"):
        notes = " ".join(run.predictions(kind).notes)
        assert "member2" in notes
        assert "late" in notes
        assert "member1" not in notes


def test_extra_checkpoints_without_predictions_are_named(trained: Any, tmp_path: Path) -> None:
    run = trained.copied_to(tmp_path / "run").run
    folder = run.fold_dir("tiny_cnn@ema", 0)
    shutil.copytree(run.fold_dir("tiny_cnn", 0), folder)
    assert "tiny_cnn@ema" in " ".join(run.predictions("oof").notes)


def test_a_swapped_folder_of_predictions_is_refused(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_members=3)
    store = run.path / "predictions"
    (store / "member0").rename(store / "x")
    (store / "member1").rename(store / "member0")
    (store / "x").rename(store / "member1")
    with pytest.raises(IntegrityError, match="member"):
        run.predictions("oof")
    shutil.rmtree(store / "member1")
    shutil.copytree(store / "member2", store / "member1")
    with pytest.raises(IntegrityError, match="'member2'"):
        run.store.read("member1")


@pytest.mark.parametrize("text", ["null", "[]", "3", "{}", "{"])
@pytest.mark.parametrize("name", ["run.json", "predictions/member0/index.json"])
def test_a_record_of_another_shape_is_named(tmp_path: Path, name: str, text: str) -> None:
    run = toy_run(tmp_path / "run", n_members=2)
    (run.path / name).write_text(text)
    with pytest.raises((IntegrityError, DataError), match=name if "/" in name else "run"):
        run.predictions("oof")


@pytest.mark.parametrize("text", ["null", "{}", "[1]", "["])
def test_a_damaged_list_of_members_is_named(tmp_path: Path, text: str) -> None:
    run = toy_run(tmp_path / "run", n_members=2)
    (run.path / "members.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"members\.json"):
        run.members()


def test_a_changed_caveat_in_the_record_is_refused(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_members=2)
    path = run.path / "run.json"
    path.write_text(path.read_text().replace('"toy"', '"boy"'))
    with pytest.raises(IntegrityError, match=r"run\.json"):
        run.notes()


def test_a_run_of_an_earlier_version_opens_with_one_caveat(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_members=2)
    assert not any("digests" in note for note in run.notes())
    for path in [run.path / "run.json", *run.path.glob("predictions/*/index.json")]:
        content = json.loads(path.read_text())
        del content["own_digest"]
        path.write_text(json.dumps(content))
    assert sum("digests" in note for note in run.predictions("oof").notes) == 1
