"""Averages of weights, and their batch statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ensemble_kit.images.augmentation.presets import preset
from ensemble_kit.images.loading.batches import Batches
from ensemble_kit.members.jobs.events import EpochEnded, Event, Notice
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.training.fit import Fit
from ensemble_kit.members.training.state import Training
from ensemble_kit.members.training.weight_averaging import Average, renew_statistics

MakeJob = Callable[..., Job]


def small_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))


def walked(model: nn.Module, average: Average, steps: int) -> list[dict[str, torch.Tensor]]:
    """The weights of a changing model after each step; the average is updated in each step."""
    seen = []
    for step in range(steps):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=torch.manual_seed(step)))
        model(torch.randn(8, 3, 8, 8, generator=torch.manual_seed(step)))  # moves the statistics
        average.update()
        seen.append(copy.deepcopy(model.state_dict()))
    return seen


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.998])
def test_an_average_follows_its_formula_and_copies_counters(
    decay: float,
) -> None:
    model = small_network()
    average = Average(model, decay)
    seen = walked(model, average, 6)
    got = average.network.state_dict()
    assert average.count == 6
    for key in got:
        if not got[key].is_floating_point():
            assert torch.equal(got[key], seen[-1][key])
            continue
        mean = seen[0][key].double()
        for n, state in enumerate(seen[1:], start=1):
            keep = min(decay, (1 + n) / (10 + n)) if decay else n / (n + 1)
            mean = keep * mean + (1 - keep) * state[key].double()
        torch.testing.assert_close(got[key].double(), mean, rtol=1e-5, atol=1e-6)


def test_an_average_resumes_from_its_state_bit_for_bit() -> None:
    (model, other), half = (small_network(), small_network()), 3
    whole, torn = Average(model, 0.9), Average(other, 0.9)
    walked(model, whole, half)
    walked(other, torn, half)
    again = Average(other, 0.9)
    again.restore(copy.deepcopy(torn.state()))
    walked(model, whole, 2)
    walked(other, again, 2)
    assert again.count == whole.count == 5
    for key, value in whole.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value)


def test_the_state_of_torchs_average_can_be_restored() -> None:
    model = small_network()
    theirs = AveragedModel(model, use_buffers=True)
    theirs.update_parameters(model)
    ours = Average(small_network(seed=1))
    ours.restore(theirs.state_dict())
    assert ours.count == 1
    assert torch.equal(ours.network[0].weight, model[0].weight)  # type: ignore[index]


def test_renewed_statistics_are_those_of_all_images_for_any_batches() -> None:
    network = small_network().train()
    network[1].running_mean.fill_(9.0)
    images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    renew_statistics(network, images.split(8))  # 8, 8 and 4
    seen = network[0](images)
    torch.testing.assert_close(network[1].running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(
        network[1].running_var, seen.var(dim=(0, 2, 3)), rtol=0.05, atol=0.01
    )
    assert network[1].momentum == 0.1
    assert not any(m.training for m in network.modules())


# -- in a training -------------------------------------------------------------------------


def fitted(job: Job) -> tuple[Fit, list[dict[str, torch.Tensor]]]:
    """A finished training, and its raw weights after every epoch."""
    fit = Fit.start(
        job.member, job.tiles, 2, device=torch.device("cpu"), precision="fp32", seed=job.model_seed
    )
    raw = []

    def after_epoch(training: Training) -> None:
        raw.append(copy.deepcopy(training.model.state_dict()))

    fit.run(job.parts().fit, after_epoch)
    return fit, raw


AVERAGED = {"epochs": 5, "learning_rate": 0.1, "schedule": "constant"}


def test_equal_averages_have_the_statistics_of_the_training_rows(make_job: MakeJob) -> None:
    job = make_job(regularize={"average_last": 3}, **AVERAGED)
    fit, raw = fitted(job)
    weights, kernel, mean = fit.model.state_dict(), "stages.0.0.weight", "stages.0.1.running_mean"
    torch.testing.assert_close(weights[kernel], sum(w[kernel] for w in raw[-3:]) / 3)
    rows = job.parts().fit
    batches = Batches(
        job.tiles, rows.train, rows.train_labels, batch_size=16, device="cpu", mean=fit.mean,
        std=fit.std, augmentation=preset("light"), seed=fit.seed,
    )  # fmt: skip
    images = torch.cat([images for images, _, _ in batches.epoch(4)])
    seen = torch.nn.functional.conv2d(images, weights[kernel], padding=1).mean(dim=(0, 2, 3))
    torch.testing.assert_close(weights[mean], seen, rtol=1e-4, atol=1e-5)
    assert (sum(w[mean] for w in raw[-3:]) / 3 - seen).abs().max() > 0.01


def test_frozen_statistics_are_not_renewed(make_job: MakeJob) -> None:
    job = make_job(regularize={"average_last": 2}, optim={"freeze_batch_norm": True}, epochs=3)
    weights = fitted(job)[0].model.state_dict()
    assert torch.equal(weights["stages.0.1.running_mean"], torch.zeros(16))


def test_a_notice_reports_that_nothing_was_averaged(make_job: MakeJob) -> None:
    settings = {"select_on": "inner", "patience": 1, "epochs": 30, "learning_rate": 0.05}
    job = make_job(regularize={"average_last": 2, "average_beside": True}, **settings)
    events: list[Event] = []
    run_job(job, events.append)
    printed = [e.text for e in events if isinstance(e, Notice) and "Nothing was averaged" in e.text]
    assert len(printed) == 1
    assert "average_last = 2 begins in epoch 29 of 30" in printed[0]
    events.clear()
    run_job(make_job("plain", regularize={"average_last": 2}), events.append)
    assert not any("Nothing was averaged" in str(e) for e in events)


def test_the_history_has_the_learning_rate_of_the_recipe(make_job: MakeJob) -> None:
    events: list[Event] = []
    run_job(
        make_job(schedule="constant", warmup_epochs=0, optim={"head_rate": 10.0}), events.append
    )
    rates = [e.learning_rate for e in events if isinstance(e, EpochEnded)]
    np.testing.assert_allclose(rates, 3e-3)
