"""Caveats about initial checkpoints that were trained on held-out images."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.folds import make_folds
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import Event, Notice
from ensemble_kit.members.jobs.fold_files import read_record
from ensemble_kit.members.jobs.init_leakage import in_another_color, seen_before
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

WEIGHTS = "model.safetensors"


def caveats(trained: Any, weights: Path, fold: int | str, folds: Any = None) -> list[str]:
    return seen_before(weights, trained.manifest, folds or trained.folds, fold)


def test_a_fold_s_network_was_trained_on_all_other_folds(trained: Any) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 1) / WEIGHTS
    assert caveats(trained, weights, 1) == []
    for fold in (0, 2, "0-1"):
        (text,) = caveats(trained, weights, fold)
        assert text.endswith("out-of-fold metrics are optimistic.")
        assert f"'{weights}'" in text


def test_images_are_recognised_by_their_digests_in_another_split(
    trained: Any, tmp_path: Path
) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 0) / WEIGHTS
    other = make_folds(trained.manifest, 3, seed=9)
    assert caveats(trained, weights, 0, other)[0].endswith("out-of-fold metrics are optimistic.")
    table = trained.manifest.table.copy()
    table["split"] = table["split"].map({"train": "test", "test": "train"})
    table["sample_id"] = [f"x{i}" for i in range(len(table))]
    swapped = dataclasses.replace(trained.manifest, table=table)
    folds = make_folds(swapped, 3, seed=0)
    (text,) = seen_before(weights, swapped, folds, 0)
    assert text.endswith("so its test metrics are optimistic.")


def test_weights_without_a_record_have_no_caveat(trained: Any, tmp_path: Path) -> None:
    fold = trained.run.fold_dir("tiny_cnn", 0)
    shutil.copy(fold / WEIGHTS, tmp_path / WEIGHTS)
    assert caveats(trained, tmp_path / WEIGHTS, 1) == []
    shutil.copytree(fold, tmp_path / "fold")
    shutil.copy(fold / WEIGHTS, tmp_path / "fold" / "other.safetensors")
    assert caveats(trained, tmp_path / "fold" / "other.safetensors", 1) == []
    assert seen_before(None, trained.manifest, trained.folds, 0) == []


def test_a_missing_run_gives_a_caveat_unless_the_data_are_the_same(
    trained: Any, tmp_path: Path
) -> None:
    shutil.copytree(trained.run.fold_dir("tiny_cnn", 0), tmp_path / "a" / "b" / "fold")
    weights = tmp_path / "a" / "b" / "fold" / WEIGHTS
    assert caveats(trained, weights, 0) == []
    assert "out-of-fold metrics are optimistic" in caveats(trained, weights, 1)[0]
    other = make_folds(trained.manifest, 3, seed=9)
    assert "optimistic" not in caveats(trained, weights, 1, other)[0]


def test_extra_checkpoints_were_trained_on_the_same_images(
    make_job: Callable[..., Job], trained: Any
) -> None:
    job = make_job(epochs=2, snapshots=2, fold=0)
    run_job(job)
    weights = job.folder / "snap1" / WEIGHTS
    assert caveats(trained, weights, 0) == []
    assert len(caveats(trained, weights, 1)) == 1


@pytest.mark.parametrize("fold", [0, 1])
def test_leakage_from_an_initial_checkpoint_is_a_caveat_and_a_notice(
    make_job: Callable[..., Job], trained: Any, fold: int
) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 0) / WEIGHTS
    job = make_job(epochs=1, fold=fold, member={"weights": weights})
    events: list[Event] = []
    run_job(job, events.append)
    record = read_record(job.folder)
    assert record is not None
    assert record["stamps"] == caveats(trained, weights, fold)
    assert len(record["stamps"]) == fold
    notices = [e.text for e in events if isinstance(e, Notice) and f"'{weights}'" in e.text]
    assert len(notices) == fold


def test_predictions_of_such_a_member_have_the_caveat(trained: Any, tmp_path: Path) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 0) / WEIGHTS
    member = Member(
        "tiny_cnn", image_size=16, weights=weights, recipe=Recipe(epochs=1, batch_size=16)
    )
    run = Run(tmp_path / "run")
    fit_members([member], trained.manifest, trained.folds, run, device="cpu")
    notes = run.predictions("oof").notes
    assert sum(f"'{weights}'" in note for note in notes) == 1


def test_a_notice_reports_an_initial_checkpoint_of_another_colour_space(
    make_job: Callable[..., Job],
) -> None:
    source = make_job("source", epochs=1, member={"color": "hed"})
    run_job(source)
    weights = source.folder / WEIGHTS
    for color, n in (("rgb", 1), ("hed", 0)):
        events: list[Event] = []
        run_job(
            make_job(color, epochs=1, member={"weights": weights, "color": color}), events.append
        )
        notices = [e.text for e in events if isinstance(e, Notice) and f"'{weights}'" in e.text]
        assert len(notices) == n
        assert all("hed" in text and color in text for text in notices)
    assert in_another_color(None, "hed") == []


def test_a_checkpoint_of_a_plain_fold_was_trained_in_rgb(trained: Any, tmp_path: Path) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 0) / WEIGHTS
    assert in_another_color(weights, "rgb") == []
    (text,) = in_another_color(weights, "lab")
    assert "rgb" in text
    assert "lab" in text
    shutil.copy(weights, tmp_path / WEIGHTS)
    assert in_another_color(tmp_path / WEIGHTS, "lab") == []
