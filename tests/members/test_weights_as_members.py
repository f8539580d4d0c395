"""Snapshots and averages as members of a whole run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import ensemble_kit as ek
import ensemble_kit.members.networks.build
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.diversity.inference_cost import member_costs
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import Event, JobStarted
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.job_spec import open_job
from ensemble_kit.members.jobs.status import run_status
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.spec_string import make_members
from ensemble_kit.run import Run

MakeJob = Callable[..., Job]
NAMES = (
    "tiny_resnet", "tiny_cnn-cyclic-snap3", "tiny_cnn-cyclic-snap3@snap1", "tiny_cnn-cyclic-snap3@snap2",
    "tiny_cnn-ema0.9-raw", "tiny_cnn-ema0.9-raw@ema",
)  # fmt: skip


@pytest.fixture(scope="module")
def several(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with three trainings and six members."""
    made = Run(tmp_path_factory.mktemp("several") / "run")
    fit_members(members(), trained.manifest, trained.folds, made, device="cpu", tensorboard=False)
    return made


def members() -> list[Member]:
    return make_members(
        [
            "tiny_resnet",
            "tiny_cnn:schedule=cyclic:snapshots=3",
            "tiny_cnn:ema_decay=0.9:average_beside",
        ],
        image_size=16, pretrained=False, recipe=Recipe(epochs=3, batch_size=16, learning_rate=3e-3),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["oof", "test"])
def test_every_checkpoint_is_a_separate_member(several: Run, trained: Any, kind: str) -> None:
    table = several.predictions(kind)
    assert table.member_names == NAMES
    assert np.isfinite(table.logits).all()
    assert len({table.logits[:, m].tobytes() for m in range(6)}) == 6
    train = trained.manifest.part("train")
    fold = trained.folds.of(train)
    if kind == "oof":
        for m, name in enumerate(NAMES):
            for k in range(3):
                stored = np.load(several.fold_dir(name, k) / "logits-oof.npy")
                np.testing.assert_array_equal(table.logits[fold == k, m], stored)


def test_timm_opens_a_snapshot_and_it_gives_the_stored_logits(
    several: Run, make_job: MakeJob
) -> None:
    folder = several.fold_dir("tiny_cnn-cyclic-snap3@snap2", 0)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    job = make_job(fold=0)
    images = torch.from_numpy(job.tiles.pixels[job.parts().held_out].astype(np.float32) / 255)
    mean, std = (torch.tensor(model.pretrained_cfg[k]) for k in ("mean", "std"))
    with torch.inference_mode():
        got = model(((images - mean) / std).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(got, np.load(folder / "logits-oof.npy"), atol=1e-5)


def test_jobs_are_counted_by_training_and_costs_by_member(several: Run) -> None:
    jobs = run_status(several)
    assert [job.state for job in jobs] == ["done"] * 9
    assert {job.member for job in jobs} == {n for n in NAMES if "@" not in n}
    for unit in ("parameters", "gmacs", "ms_per_image"):
        costs = member_costs(several, NAMES, unit)
        for name in NAMES:
            assert costs[name] == costs[name.partition("@")[0]] > 0
    assert costs["tiny_resnet"] != costs["tiny_cnn-ema0.9-raw"]


def test_extra_checkpoints_can_be_combined(several: Run) -> None:
    oof, test = several.predictions("oof"), several.predictions("test")
    scores = ek.compare(
        {"mean": ek.MeanProba(), "vote": ek.MajorityVote()}, fit_on=oof, score_on=test
    )
    assert {"mean", "vote"} <= set(scores["method"])


def test_the_same_call_trains_nothing_and_a_changed_one_moves_all_checkpoints_away(
    several: Run, trained: Any, tmp_path: Path
) -> None:
    copied = Run(shutil.copytree(several.path, tmp_path / "run"))
    events: list[Event] = []
    options = {"device": "cpu", "listener": events.append, "tensorboard": False}
    fit_members(members(), trained.manifest, trained.folds, copied, **options)
    assert not any(isinstance(e, JobStarted) for e in events)
    plain, cyclic, pair = members()
    fewer = cyclic.recipe.model_copy(update={"snapshots": 2})
    changed = [plain, cyclic.model_copy(update={"recipe": fewer}), pair]
    fit_members(changed, trained.manifest, trained.folds, copied, retrain=True, **options)
    assert copied.predictions().member_names == (*NAMES[:3], *NAMES[4:])
    aside = {p.name for p in (copied.path / "replaced" / f"{NAMES[1]}-1").iterdir()}
    assert aside == {"members", "predictions", "predictions@snap1", "predictions@snap2"}


def test_pairs_of_folds_give_nested_predictions_of_all_checkpoints(
    several: Run, trained: Any, tmp_path: Path
) -> None:
    copied = Run(shutil.copytree(several.path, tmp_path / "run"))
    fit_members(
        members(), trained.manifest, trained.folds, copied, device="cpu", tensorboard=False, nested=True
    )  # fmt: skip
    for outer in copied.nested_predictions():
        assert outer.outer.member_names == NAMES
        assert np.isfinite(outer.outer.logits).all()
        assert len({outer.outer.logits[:, m].tobytes() for m in range(6)}) == 6


# -- models of single folds ----------------------------------------------------------------


def test_fold_models_can_be_members_for_the_test_rows(several: Run) -> None:
    table = several.predictions("test", fold_models=True)
    assert table.member_names[:4] == (
        "tiny_resnet@fold0", "tiny_resnet@fold1", "tiny_resnet@fold2", "tiny_cnn-cyclic-snap3@fold0",
    )  # fmt: skip
    assert table.n_members == 18
    for k in range(3):
        stored = np.load(several.fold_dir("tiny_resnet", k) / "logits-test.npy")
        np.testing.assert_array_equal(table.logits[:, k], stored)
    whole = several.predictions("test")
    by_member = table.logits.reshape(len(table), 6, 3, 2).mean(axis=2)
    np.testing.assert_allclose(by_member, whole.logits, atol=1e-6)
    voted = ek.MajorityVote().fit(table.logits, table.labels).predict(table.logits)
    assert voted.shape == table.labels.shape
    with pytest.raises(DataError, match="'oof'"):
        several.predictions("oof", fold_models=True)


def test_an_extra_checkpoint_has_no_job(
    several: Run,
) -> None:
    with pytest.raises(DataError, match=r"Run the job of 'tiny_cnn-cyclic-snap3'"):
        open_job(several, "tiny_cnn-cyclic-snap3@snap1", 0)
