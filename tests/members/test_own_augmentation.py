"""A custom augmentation trains like a preset, and its job needs no settings file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ensemble_kit.files import read_json
from ensemble_kit.images.augmentation.presets import PRESETS, Augmentation
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job


def logits(job: Job) -> bytes:
    run_job(job)
    return bytes(np.load(job.folder / "logits-oof.npy").tobytes())


def test_the_keys_of_a_preset_train_like_its_name(make_job: Callable[..., Job]) -> None:
    named = logits(make_job("a", epochs=1, augmentation="light"))
    assert logits(make_job("b", epochs=1, augmentation=PRESETS["light"])) == named
    assert logits(make_job("c", epochs=1, augmentation=Augmentation(rotation=90))) != named


def test_the_record_of_a_fold_holds_the_keys_of_the_augmentation(
    make_job: Callable[..., Job],
) -> None:
    values = {"flip_vertical": True, "stain": 0.25}
    job = make_job(epochs=1, augmentation=Augmentation(**values))
    run_job(job)
    assert read_json(job.folder / "recipe.json")["augmentation"] == values
    made_of = read_json(job.folder / "fold.json")["made_of"]
    assert made_of["member"]["recipe"]["augmentation"] == values
    assert make_job(epochs=1, augmentation=values).finished(), "the keys are the augmentation"
    assert make_job(epochs=1, augmentation=Augmentation(**values, hue=0.1)).changes() == [
        "member.recipe.augmentation.hue: the default -> 0.1"
    ]
