"""First weights that have seen the answers are said to have, and no others."""

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


def printed(trained: Any, weights: Path, fold: int | str, folds: Any = None) -> list[str]:
    return seen_before(weights, trained.manifest, folds or trained.folds, fold)


def test_a_fold_s_network_has_seen_every_fold_but_its_own(trained: Any) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 1) / WEIGHTS
    assert printed(trained, weights, 1) == []
    for fold in (0, 2, "0-1"):
        (text,) = printed(trained, weights, fold)
        assert "that are kept out here, so its out-of-fold metrics are optimistic" in text
        assert str(weights) in text


def test_the_same_images_in_another_split_are_known_by_their_bytes(
    trained: Any, tmp_path: Path
) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 0) / WEIGHTS
    other = make_folds(trained.manifest, 3, seed=9)
    assert printed(trained, weights, 0, other)[0].endswith("out-of-fold metrics are optimistic.")
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
    assert printed(trained, tmp_path / WEIGHTS, 1) == []
    shutil.copytree(fold, tmp_path / "fold")
    shutil.copy(fold / WEIGHTS, tmp_path / "fold" / "other.safetensors")
    assert printed(trained, tmp_path / "fold" / "other.safetensors", 1) == []
    assert seen_before(None, trained.manifest, trained.folds, 0) == []


def test_a_record_whose_run_is_gone_leaves_a_doubt_unless_the_data_are_the_same(
    trained: Any, tmp_path: Path
) -> None:
    shutil.copytree(trained.run.fold_dir("tiny_cnn", 0), tmp_path / "a" / "b" / "fold")
    weights = tmp_path / "a" / "b" / "fold" / WEIGHTS
    assert printed(trained, weights, 0) == []
    assert "out-of-fold metrics are optimistic" in printed(trained, weights, 1)[0]
    other = make_folds(trained.manifest, 3, seed=9)
    assert "does not tell any more" not in printed(trained, weights, 1)[0]
    assert "may be among those kept out" in printed(trained, weights, 1, other)[0]


def test_further_weights_have_seen_what_their_training_saw(
    make_job: Callable[..., Job], trained: Any
) -> None:
    job = make_job(epochs=2, snapshots=2, fold=0)
    run_job(job)
    weights = job.folder / "snap1" / WEIGHTS
    assert printed(trained, weights, 0) == []
    assert len(printed(trained, weights, 1)) == 1


@pytest.mark.parametrize("fold", [0, 1])
def test_what_initial_weights_have_seen_is_a_caveat_of_the_fold_and_said_at_once(
    make_job: Callable[..., Job], trained: Any, fold: int
) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 0) / WEIGHTS
    job = make_job(epochs=1, fold=fold, member={"weights": weights})
    events: list[Event] = []
    run_job(job, events.append)
    record = read_record(job.folder)
    assert record is not None
    assert record["stamps"] == printed(trained, weights, fold)
    assert len(record["stamps"]) == fold
    notices = [e.text for e in events if isinstance(e, Notice) and "Caveat: its first" in e.text]
    assert len(notices) == fold


def test_every_metric_of_such_a_member_says_so(trained: Any, tmp_path: Path) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 0) / WEIGHTS
    member = Member(
        "tiny_cnn", image_size=16, weights=weights, recipe=Recipe(epochs=1, batch_size=16)
    )
    run = Run(tmp_path / "run")
    fit_members([member], trained.manifest, trained.folds, run, device="cpu")
    notes = run.predictions("oof").notes
    assert sum("that are kept out here" in note for note in notes) == 1


def test_first_weights_that_saw_other_colours_are_said_to_have(
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
        notices = [e.text for e in events if isinstance(e, Notice) and "images in hed" in e.text]
        assert len(notices) == n
        assert all(f"in hed, and it sees {color}" in text for text in notices)
    assert in_another_color(None, "hed") == []


def test_first_weights_of_a_plain_fold_saw_rgb(trained: Any, tmp_path: Path) -> None:
    weights = trained.run.fold_dir("tiny_cnn", 0) / WEIGHTS
    assert in_another_color(weights, "rgb") == []
    (text,) = in_another_color(weights, "lab")
    assert "images in rgb, and it sees lab" in text
    shutil.copy(weights, tmp_path / WEIGHTS)
    assert in_another_color(tmp_path / WEIGHTS, "lab") == []
