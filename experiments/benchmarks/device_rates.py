"""Upper bounds of the training speed on a device, from its measured rates.

A training step cannot be faster than its arithmetic at the rate of matrix products, or than its memory
traffic at the rate of copies. Both rates are measured. Both counts come from the network.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import nn

from ensemble_kit.members.registry import cost, timm_name

BYTES = 2  # per bf16 number


@dataclasses.dataclass(frozen=True)
class DeviceRates:
    """Measured rates of a device: multiply-accumulates per second in bf16, bytes copied per second."""

    macs_per_second: float
    bytes_per_second: float

    @classmethod
    def measure(cls, device: torch.device) -> DeviceRates:
        n, size = (8192, 2**30) if device.type == "cuda" else (1024, 2**28)
        a = torch.randn(n, n, device=device).bfloat16()
        source = torch.empty(size, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        # A copy reads and writes.
        return cls(
            n**3 / _seconds(lambda: a @ a, device),
            2 * size / _seconds(lambda: target.copy_(source), device),
        )

    def upper_bounds(self, network: str, size: int) -> dict[str, float]:
        """Upper bounds of images per second in training, by arithmetic and by memory traffic.

        Arithmetic counts three passes (forward, by inputs, by weights). Traffic counts the inputs and
        outputs of each layer in bf16, once forward and twice backward. It is a bound for code that
        runs layer by layer; kernels that fuse layers have less traffic.
        """
        macs = 3 * cost(network, size).macs
        return {
            "by_arithmetic": self.macs_per_second / macs,
            "by_traffic": self.bytes_per_second / (3 * BYTES * numbers_moved(network, size)),
        }


def numbers_moved(network: str, size: int) -> int:
    """How many numbers the layers of a network read and write in the forward pass of one image."""
    moved = 0

    def count(_: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal moved
        tensors = [t for t in (*inputs, output) if isinstance(t, torch.Tensor)]
        moved += sum(t.numel() for t in tensors)

    with torch.device("meta"):
        model = timm.create_model(timm_name(network)).eval()
        for module in model.modules():
            if not list(module.children()) and not isinstance(module, nn.Identity):
                module.register_forward_hook(count)
        with torch.no_grad():
            model(torch.empty(1, 3, size, size))
    return moved


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(8):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])
