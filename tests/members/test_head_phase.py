"""The head-only phase on cached features: trained and frozen parts, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kit.errors import DataError
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network, pooled_features
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.recipe_sections import Optim
from ensemble_kit.members.training.fit import Fit
from ensemble_kit.members.training.frozen_backbone import FrozenBackbone, refuse_other_tails
from ensemble_kit.members.training.precision import tensor_float32
from ensemble_kit.members.training.state import Training

MakeJob = Callable[..., Job]
CACHED = {"head_only_epochs": 2, "cache_features": True}


class StoppedError(Exception):
    """Stops a training between two epochs."""


def after_epochs(job: Job, n: int) -> dict[str, torch.Tensor]:
    """The model's tensors after `n` epochs."""
    fit = started(job)
    held: dict[str, torch.Tensor] = {}

    def look(training: Training) -> None:
        if training.epoch == n:
            held.update({k: v.clone() for k, v in training.model.state_dict().items()})
            raise StoppedError

    with pytest.raises(StoppedError):
        fit.run(job.parts().fit, look)
    return held


def started(job: Job) -> Fit:
    return Fit.start(
        job.member, job.tiles, 2, device=job.device, precision="fp32", seed=job.model_seed
    )


@pytest.mark.parametrize("cached", [True, False])
def test_only_the_head_is_trained_and_the_backbones_statistics_are_frozen(
    make_job: MakeJob, cached: bool
) -> None:
    job = make_job(optim={**CACHED, "cache_features": cached})
    before = started(job).model.state_dict()
    after = after_epochs(job, 2)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"fc.weight", "fc.bias"}
    later = after_epochs(job, 3)
    assert not torch.equal(later["stages.0.0.weight"], before["stages.0.0.weight"])
    assert int(later["stages.0.1.num_batches_tracked"]) > 0


def test_images_are_not_augmented_in_cached_epochs(make_job: MakeJob) -> None:
    plain, *others = (
        after_epochs(make_job(name, augmentation=name, optim=CACHED), 2)
        for name in ("none", "strong-affine", "trivial")
    )
    for other in others:
        assert all(torch.equal(plain[k], other[k]) for k in plain)


@pytest.mark.parametrize("member", [{}, {"head": (8,)}], ids=str)
def test_the_cached_phase_equals_the_uncached_one_without_augmentation(
    make_job: MakeJob, member: dict[str, Any]
) -> None:
    with_cache, without = (
        after_epochs(make_job(str(c), member=member, augmentation="none",
                              optim={**CACHED, "cache_features": c}), 2)
        for c in (True, False)
    )  # fmt: skip
    for name, value in without.items():
        torch.testing.assert_close(with_cache[name], value, rtol=1e-3, atol=1e-5)


def test_an_average_of_head_only_epochs_has_the_backbones_statistics(make_job: MakeJob) -> None:
    job = make_job(optim={"head_only_epochs": 2}, regularize={"average_last": 2})
    fit = started(job)
    first = {k: v.clone() for k, v in fit.model.state_dict().items()}
    seen: list[dict[str, torch.Tensor]] = []

    def look(training: Training) -> None:
        assert training.averaged is not None
        averaged = training.averaged.network.state_dict()
        seen.append({k: v.clone() for k, v in averaged.items() if not k.startswith("fc")})

    fit.run(job.parts().fit, look)
    assert all(torch.equal(first[name], value) for name, value in seen[1].items())


def test_cached_validation_metrics_are_those_of_the_whole_network(make_job: MakeJob) -> None:
    job = make_job(optim=CACHED)
    fit, rows = started(job), job.parts().fit
    seen: list[tuple[dict[str, Any], np.ndarray]] = []

    def look(training: Training) -> None:
        seen.append(
            (training.history[-1], fit.validation_logits(rows.validation, training.evaluated))
        )

    fit.run(rows, look)
    for row, logits in seen:
        shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -shifted[np.arange(len(logits)), rows.validation_labels].mean()
        assert row["val_log_loss"] == pytest.approx(loss, abs=1e-4)


def test_the_backbone_is_run_once(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[int] = []
    made = Fit._frozen_backbone

    def counted(self: Fit, rows: Any) -> FrozenBackbone:
        requested.append(self.training.epoch)
        return made(self, rows)

    monkeypatch.setattr(Fit, "_frozen_backbone", counted)
    run_job(make_job("a", optim=CACHED))
    assert requested == [0]
    run_job(make_job("b", optim={"head_only_epochs": 2}))
    assert requested == [0]


RECIPES = [
    {},
    {"member": {"drop_rate": 0.4}, "sampling": "balanced"},
    {"member": {"head": (8,), "drop_rate": 0.4}, "select_on": "inner"},
    {"regularize": {"ema_decay": 0.9}, "member": {"bag": True}},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_job_interrupted_in_or_after_the_phase_resumes_bit_for_bit(
    make_job: MakeJob, interrupt: Callable[[Job, int], None], recipe: dict[str, Any], after: int
) -> None:
    how = {"epochs": 4, "optim": CACHED, **recipe}
    whole, torn = make_job("whole", **how), make_job("torn", **how)
    run_job(whole)
    interrupt(torn, after)
    run_job(torn)
    for name in ("model.safetensors", "logits-oof.npy", "logits-test.npy"):
        assert (torn.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_cache_features_changes_the_facts_only_if_it_is_on() -> None:
    facts = [
        Member("tiny_cnn", recipe=Recipe(optim=Optim(head_only_epochs=1, cache_features=c))).facts(
            32
        )
        for c in (False, True)
    ]
    assert "cache_features" not in facts[0]["recipe"]["optim"]
    assert facts[1]["recipe"]["optim"]["cache_features"] is True


def test_cached_features_without_head_only_epochs_are_refused() -> None:
    with pytest.raises(DataError, match=r"head_only_epochs is 0"):
        Optim(cache_features=True)


def test_a_network_with_layers_after_its_classifier_is_refused() -> None:
    images = torch.rand(2, 3, 32, 32)
    for name, ends_there in (("tiny_cnn", True), ("cnn3_sigmoid", False)):
        model = build_network(Member(name, pretrained=False), 2, image_size=32).eval()
        with torch.inference_mode():
            features, logits = pooled_features(model, images).numpy(), model(images).numpy()
        if ends_there:
            refuse_other_tails(model, features, logits)
            with pytest.raises(DataError):
                refuse_other_tails(model, features, logits + 0.1)
            continue
        with pytest.raises(DataError, match=r"DenseCNN .*cache_features"):
            refuse_other_tails(model, features, logits)


def test_classifiers_are_compared_in_full_precision() -> None:
    model = build_network(Member("tiny_cnn", pretrained=False), 2, image_size=32).eval()
    with torch.inference_mode():
        images = torch.rand(2, 3, 32, 32)
        features, logits = pooled_features(model, images).numpy(), model(images).numpy()
    allowed = []
    head: Any = model.get_classifier()  # type: ignore[operator]
    head.register_forward_hook(lambda *_: allowed.append(torch.backends.cuda.matmul.allow_tf32))
    with tensor_float32(True):
        refuse_other_tails(model, features, logits)
    assert allowed == [False]
