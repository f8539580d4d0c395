"""Snapshots and averages: extra checkpoints equal separate trainings."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.members.jobs.events import JobStarted
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training.fit import Fit
from ensemble_kit.members.training.optim import rate_at
from ensemble_kit.members.training.state import Training

pytestmark = pytest.mark.slow

MakeJob = Callable[..., Job]
EMA = {"ema_decay": 0.9}
BESIDE = {**EMA, "average_beside": True}
OF_WEIGHTS = ("model.safetensors", "config.json", "logits-oof.npy", "logits-test.npy")


def weights(job: Job, name: str = "") -> dict[str, bytes]:
    state = load_file(job.folder / name / "model.safetensors")
    return {k: v.numpy().tobytes() for k, v in state.items()}


def logits(job: Job, name: str = "") -> tuple[bytes, bytes]:
    oof, test = (np.load(job.folder / name / f"logits-{p}.npy") for p in ("oof", "test"))
    return oof.tobytes(), test.tobytes()


def run(job: Job) -> Job:
    run_job(job)
    return job


# -- the schedule --------------------------------------------------------------------------


def test_a_cyclic_rate_is_a_cosine_from_the_peak_in_every_cycle() -> None:
    recipe = Recipe(epochs=6, learning_rate=0.2, warmup_epochs=0, schedule="cyclic", snapshots=3)
    got = [rate_at(step, recipe, 5) for step in range(30)]
    # Huang et al. 2017, equation 2, with 0-based steps.
    want = [0.2 / 2 * (math.cos(math.pi * (step % 10) / 10) + 1) for step in range(30)]
    assert got == pytest.approx(want)


@pytest.mark.parametrize(("epochs", "snapshots"), [(2, 2), (7, 3), (5, 5), (16, 4)])
def test_warm_up_takes_at_most_half_of_the_first_cycle(epochs: int, snapshots: int) -> None:
    recipe = Recipe(
        epochs=epochs, snapshots=snapshots, schedule="cyclic", warmup_epochs=9, learning_rate=1.0
    )
    for steps in (1, 2, 5):
        got = [rate_at(s, recipe, steps) for s in range(epochs * steps)]
        assert min(got) > 0
        assert max(got) <= 1.0
        for end in recipe.snapshot_epochs[:-1]:
            assert got[end * steps] == 1.0
            assert got[end * steps - 1] < 1.0 or steps <= 2


# -- stored weights ------------------------------------------------------------------------


def test_snapshots_equal_shorter_trainings(make_job: MakeJob) -> None:
    constant = {"schedule": "constant", "warmup_epochs": 0.5}
    whole = run(make_job("whole", epochs=4, snapshots=3, **constant))
    for name, epochs in (("snap1", 2), ("snap2", 3), ("", 4)):
        alone = run(make_job(f"alone{epochs}", epochs=epochs, **constant))
        assert weights(whole, name) == weights(alone)
        assert logits(whole, name) == logits(alone)
    assert sorted(p.name for p in whole.folder.iterdir() if p.is_dir()) == ["snap1", "snap2"]


def test_snapshots_are_the_weights_at_the_end_of_each_cycle(make_job: MakeJob) -> None:
    job = run(make_job(epochs=5, snapshots=3, schedule="cyclic"))
    fit = Fit.start(
        job.member, job.tiles, 2, device=torch.device("cpu"), precision="fp32", seed=job.model_seed
    )
    cut: dict[int, Any] = {}

    def after_epoch(training: Training) -> None:
        cut[training.epoch] = copy.deepcopy(training.model.state_dict())

    fit.run(job.parts().fit, after_epoch)
    assert job.member.recipe.snapshot_epochs == (1, 3, 5)
    for name, epochs in (("snap1", 1), ("snap2", 3), ("", 5)):
        assert weights(job, name) == {k: v.numpy().tobytes() for k, v in cut[epochs].items()}


def test_raw_weights_and_average_equal_trainings_with_one_of_them(
    make_job: MakeJob,
) -> None:
    both = run(make_job("both", regularize=BESIDE))
    assert weights(both) == weights(run(make_job("raw")))
    average = run(make_job("average", regularize=EMA))
    assert weights(both, "ema") == weights(average)
    assert logits(both, "ema") == logits(average)
    assert weights(both) != weights(both, "ema")


def test_an_average_of_the_last_epochs_can_be_a_separate_member(make_job: MakeJob) -> None:
    both = run(make_job("both", epochs=4, regularize={"average_last": 2, "average_beside": True}))
    average = run(make_job("average", epochs=4, regularize={"average_last": 2}))
    assert weights(both, "swa") == weights(average)
    assert weights(both) == weights(run(make_job("raw", epochs=4)))


def test_the_average_is_that_of_the_selected_epoch(make_job: MakeJob) -> None:
    settings = {"select_on": "inner", "epochs": 6, "learning_rate": 0.1}
    job = run(make_job(regularize=BESIDE, **settings))
    chosen = json.loads((job.folder / "fold.json").read_text())["chosen_epoch"]
    fit = Fit.start(
        job.member, job.tiles, 2, device=torch.device("cpu"), precision="fp32", seed=job.model_seed
    )
    cut: list[Any] = []

    def after_epoch(training: Training) -> None:
        cut.append(copy.deepcopy(training.average.state_dict()))

    fit.run(job.parts().fit, after_epoch)
    assert chosen < 5
    assert weights(job, "ema") == {k: v.numpy().tobytes() for k, v in cut[chosen].items()}


def test_snapshots_of_an_averaged_training_are_averages(make_job: MakeJob) -> None:
    constant = {"schedule": "constant", "regularize": EMA}
    whole = run(make_job("whole", epochs=3, snapshots=2, **constant))
    assert weights(whole, "snap1") == weights(run(make_job("alone", epochs=2, **constant)))


def test_the_model_has_its_own_weights_again_after_the_block(make_job: MakeJob) -> None:
    job = make_job(snapshots=2)
    fit = Fit.start(
        job.member, job.tiles, 2, device=torch.device("cpu"), precision="fp32", seed=job.model_seed
    )
    parts = job.parts()
    fit.run(parts.fit, lambda training: None)
    before = fit.logits(parts.held_out)
    with fit.holding("snap1"):
        assert not np.array_equal(fit.logits(parts.held_out), before)
    np.testing.assert_array_equal(fit.logits(parts.held_out), before)


# -- resuming and damage -------------------------------------------------------------------


RECIPES = [
    {"snapshots": 3},
    {"snapshots": 2, "schedule": "cyclic"},
    {"regularize": BESIDE},
    {"snapshots": 2, "schedule": "cyclic", "regularize": BESIDE},
    {"select_on": "inner", "regularize": BESIDE},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_training_gives_all_its_members_bit_for_bit(
    make_job: MakeJob, interrupt: Callable[[Job, int], None], recipe: dict[str, Any], after: int
) -> None:
    whole = run(make_job("whole", epochs=4, **recipe))
    torn = make_job("torn", epochs=4, **recipe)
    interrupt(torn, after)
    first: list[int] = []
    run_job(torn, lambda e: first.append(e.first_epoch) if isinstance(e, JobStarted) else None)
    assert first == [after]
    for name in ("", *whole.member.recipe.extra_checkpoints):
        assert weights(torn, name) == weights(whole, name)
        assert logits(torn, name) == logits(whole, name)


@pytest.mark.parametrize("file", OF_WEIGHTS)
def test_a_fold_is_done_only_if_the_files_of_all_its_members_are_intact(
    make_job: MakeJob, file: str
) -> None:
    job = run(make_job(epochs=2, snapshots=2))
    assert job.finished()
    path = job.folder / "snap1" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"snap1/{file}' does not match its digest"):
        job.finished()
    path.unlink()
    with pytest.raises(IntegrityError, match=f"snap1/{file}' is missing"):
        job.finished()


def test_more_snapshots_than_a_finished_fold_has_are_refused(make_job: MakeJob) -> None:
    run(make_job(epochs=3))
    with pytest.raises(DataError, match=r"recipe\.snapshots: the default -> 2"):
        make_job(epochs=3, snapshots=2).finished()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "cyclic"}, "'cyclic' and snapshots is 0"),
        ({"schedule": "cyclic", "snapshots": 1}, "snapshots is 1"),
        ({"epochs": 3, "snapshots": 4}, "snapshots is 4 and epochs is 3"),
        ({"snapshots": 2, "select_on": "inner"}, "'inner'"),
        ({"regularize": {"average_beside": True}}, "ema_decay and average_last are 0"),
    ],
)
def test_weights_that_cannot_be_stored_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Recipe(**settings)
