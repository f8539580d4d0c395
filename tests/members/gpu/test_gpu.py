"""Tests of the fake GPU: refused operations, and counted waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

HERE, THERE = torch.arange(3.0), "cuda"


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + HERE,
        lambda x: torch.nn.Linear(3, 2)(x),
        lambda x: x + torch.nn.Parameter(torch.ones(3)),
        lambda x: torch.nn.BatchNorm1d(3)(x[None].expand(2, 3)),
        lambda x: torch.stack([x[0], torch.tensor(1.0)]),
        lambda x: torch.rand(3, device=THERE, generator=torch.Generator()),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: F.cross_entropy(x[None], torch.tensor([1])),
    ],
)
def test_the_fake_gpu_refuses_what_a_gpu_refuses(gpu: Any, mix: Callable[[Any], Any]) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        mix(HERE.to(THERE))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 1).any()),
        lambda x: x.cpu(),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: x.to(HERE),
        lambda x: HERE.to(x),
        lambda x: HERE.to(THERE, non_blocking=True),  # not pinned
        lambda x: torch.tensor([1.0], device=THERE),
        lambda x: x[x > 1],
        lambda x: x[[0, 1]],
        lambda x: x.index_put((x > 1,), x[0]),
        lambda x: torch.where(x > 1),
        lambda x: torch.is_nonzero(x[0]),
        lambda x: 1.0 in x,
        lambda x: repr(x),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: F.one_hot(x.long()),
        lambda x: torch.linalg.inv(torch.diag(x + 1)),
        lambda x: torch.cuda.synchronize(),
    ],
)
def test_the_fake_gpu_counts_waits_of_the_host(gpu: Any, read: Callable[[Any], Any]) -> None:
    x = HERE.to(THERE)
    gpu.waits.clear()
    read(x)
    assert gpu.waits


@pytest.mark.parametrize(
    "work",
    [
        lambda x: (x * 2 + 1).sum(),
        lambda x: x + torch.tensor(1.0),
        lambda x: x[x.long()],
        lambda x: torch.where(x > 1, x, 0.0),
        lambda x: F.one_hot(x.long(), 3),
        lambda x: HERE.pin_memory().to(x.device, non_blocking=True),
        lambda x: torch.nn.Linear(3, 2).to("meta"),
        lambda x: torch.zeros(3, device=THERE).copy_(x),
    ],
)
def test_operations_without_a_wait_are_not_counted(gpu: Any, work: Callable[[Any], Any]) -> None:
    x = HERE.to(THERE)
    gpu.waits.clear()
    work(x)
    assert not gpu.waits


def test_results_stay_on_the_device_of_their_inputs(gpu: Any) -> None:
    x = HERE.to(THERE)
    assert {t.device.type for t in (x * 2, x[0], x.detach(), x.to(x), HERE.to(x))} == {"cuda"}
    assert {t.device.type for t in (HERE * 2, x.cpu(), x.to("cpu"), torch.ones(2))} == {"cpu"}
    model = torch.nn.Linear(3, 2).to(THERE)
    model(x).sum().backward()
    assert model.weight.is_cuda
    assert model.weight.grad is not None
    assert model.weight.grad.device.type == "cuda"
