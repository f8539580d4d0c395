"""What a device could do at best: the floor under a training step, from measured rates.

A step cannot be faster than its arithmetic at the matrix rate, nor than its traffic at the copy
rate. Both rates are measured here and now; both counts are taken from the network itself.
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

BYTES = 2  # of a bf16 number


@dataclasses.dataclass(frozen=True)
class Card:
    """Measured rates of a device: multiply-accumulates a second in bf16, bytes a second copied."""

    macs_per_second: float
    bytes_per_second: float

    @classmethod
    def measure(cls, device: torch.device) -> Card:
        n, size = (8192, 2**30) if device.type == "cuda" else (1024, 2**28)
        a = torch.randn(n, n, device=device).bfloat16()
        source = torch.empty(size, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        # A copy reads and writes.
        return cls(
            n**3 / _seconds(lambda: a @ a, device),
            2 * size / _seconds(lambda: target.copy_(source), device),
        )

    def floor(self, network: str, size: int) -> dict[str, float]:
        """Images per second that arithmetic alone and traffic alone would allow in training.

        Arithmetic counts three passes (forward, by inputs, by weights). Traffic counts what each
        layer reads and writes in bf16, once forward and twice backward; kernels that fuse layers
        need less, so it is the floor of code that runs layer by layer.
        """
        macs = 3 * cost(network, size).macs
        return {
            "by_arithmetic": self.macs_per_second / macs,
            "by_traffic": self.bytes_per_second / (3 * BYTES * numbers_moved(network, size)),
        }


def numbers_moved(network: str, size: int) -> int:
    """Numbers that all layers of a network read and write for one image, forward."""
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
