"""Mixup and CutMix of images and labels, with any augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot

from ensemble_kit.files import read_csv
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.recipe_sections import Regularize
from ensemble_kit.members.training import loop as train_module
from ensemble_kit.members.training.losses import mixed

N = 6
# Each image has its own grey, so that the shares in a mixed image can be computed.
IMAGES = torch.arange(N, dtype=torch.float32).reshape(N, 1, 1, 1).expand(N, 3, 8, 8).contiguous()
LABELS = torch.arange(N)


def mix(seed: int = 0, **alphas: float) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return mixed(IMAGES, LABELS, N, Regularize(**alphas), draws)


def is_blend(images: torch.Tensor) -> bool:
    """Whether every image has one grey."""
    return bool((images == images[:, :1, :1, :1]).all())


@pytest.mark.parametrize("alphas", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 2.0, "cutmix": 0.5}])
def test_mixed_labels_are_the_shares_of_the_images(alphas: dict[str, float]) -> None:
    for seed in range(20):
        images, soft = mix(seed, **alphas)
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(N))
        # The mean grey of a mixed image is the mean of its labels, which are the greys.
        torch.testing.assert_close(images.mean(dim=(1, 2, 3)), soft @ LABELS.float())
        assert set(images.flatten().tolist()) <= set(range(N)) or is_blend(images)


def test_mixup_blends_and_cutmix_pastes() -> None:
    assert all(is_blend(mix(seed, mixup=1.0)[0]) for seed in range(20))
    pasted = [mix(seed, cutmix=1.0)[0] for seed in range(20)]
    assert all(set(images.flatten().tolist()) <= set(range(N)) for images in pasted)
    assert not all(is_blend(images) for images in pasted)


def test_with_both_a_batch_is_mixed_by_one_of_them_at_even_odds() -> None:
    n = sum(
        not set(mix(seed, mixup=1.0, cutmix=1.0)[0].flatten().tolist()) <= set(range(N))
        for seed in range(400)
    )
    assert 160 < n < 240


def test_a_larger_alpha_mixes_more_evenly() -> None:
    own = {
        alpha: sum(float((mix(s, mixup=alpha)[1].amax(dim=1)).mean()) for s in range(100)) / 100
        for alpha in (0.1, 5.0)
    }
    assert own[0.1] > 0.85
    assert own[5.0] < 0.75


@pytest.mark.parametrize("augmentation", ["none", "light", "stain", "trivial"])
def test_a_job_mixes_on_top_of_any_augmentation(
    make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, augmentation: str
) -> None:
    targets: list[torch.Tensor] = []
    step = train_module.take_step

    def spy(training, images, target, *words):  # type: ignore[no-untyped-def]
        targets.append(target)
        return step(training, images, target, *words)

    monkeypatch.setattr(train_module, "take_step", spy)
    run_job(make_job(epochs=1, augmentation=augmentation, regularize={"mixup": 0.2, "cutmix": 1.0}))
    assert targets
    assert all(t.ndim == 2 for t in targets)
    assert any(not torch.equal(t, one_hot(t.argmax(dim=1), t.shape[1]).float()) for t in targets)


def test_mixing_changes_the_facts_only_if_it_is_on() -> None:
    plain = Member("tiny_cnn", recipe=Recipe()).facts(16)["recipe"]["regularize"]
    assert not plain.keys() & {"mixup", "cutmix"}
    both = Recipe(regularize={"mixup": 0.2, "cutmix": 1.0})
    facts = Member("tiny_cnn", recipe=both).facts(16)["recipe"]["regularize"]
    assert (facts["mixup"], facts["cutmix"]) == (0.2, 1.0)


@pytest.mark.parametrize("alphas", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_the_training_accuracy_uses_the_class_with_the_larger_share(
    alphas: dict[str, float], make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train_module.take_step

    def knows_all(training: Any, images: Any, target: torch.Tensor, *more: Any) -> Any:
        loss, _ = real(training, images, target, *more)
        return loss, target  # a network with perfect predictions

    monkeypatch.setattr(train_module, "take_step", knows_all)
    job = make_job(epochs=2, regularize=alphas)
    run_job(job)
    history = read_csv(job.folder / "history.csv")
    assert history["train_accuracy"].astype(float).tolist() == [1.0, 1.0]
