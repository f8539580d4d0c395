"""The device and the precision (autocast) of training. Stored predictions are always float32."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ensemble_kit.errors import EnvironmentFault, UsageError, did_you_mean

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Precision:
    """A precision: fp32 is without autocast; fp16 needs loss scaling."""

    name: str

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.name]

    @property
    def autocasts(self) -> bool:
        return self.name != "fp32"

    @property
    def scales_loss(self) -> bool:
        return self.name == "fp16"


FULL = Precision("fp32")


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` is the first available of CUDA, MPS and CPU.

    Raises
    ------
    UsageError
        An unknown device name.
    EnvironmentFault
        The device is not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        known = ("auto", "cpu", "cuda", "cuda:0", "mps")
        raise UsageError(
            f"Unknown device '{name}'",
            f"the devices are {', '.join(known)}",
            did_you_mean(name, known),
        ) from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise EnvironmentFault(
            f"The device '{name}' is not available here",
            f"there are {torch.cuda.device_count()} CUDA devices",
            "Use --device cpu, or check the driver and CUDA_VISIBLE_DEVICES",
        )
    return device


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision called `name`; `auto` follows a fixed rule.

    On CUDA it is bf16 if the GPU supports it, else fp16. On CPUs it is bf16 if the processor
    multiplies it natively, else fp32.

    Raises
    ------
    UsageError
        An unknown name.
    """
    if name != "auto":
        if name not in PRECISIONS:
            raise UsageError(
                f"Unknown precision '{name}'",
                f"known are auto, {', '.join(PRECISIONS)}",
                did_you_mean(name, ["auto", *PRECISIONS]),
            )
        return Precision(name)
    if device.type == "cuda":
        # Older GPUs emulate bf16, which is slower than fp16 and fp32.
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bf16" if has_bf16 else "fp16")
    return Precision("bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "fp32")


def candidates(device: torch.device) -> list[str]:
    """Names of the precisions that can be the fastest on this device."""
    chosen = choose_precision("auto", device).name
    return [chosen] if chosen == "fp32" else [chosen, "fp32"]


@contextlib.contextmanager
def tensor_float32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in convolutions and matrix products inside the block."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = allowed
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def keep_depthwise_in_float32(model: nn.Module) -> None:
    """Compute depth-wise convolutions in float32 inside CPU autocast, where bf16 is slower.

    Names, shapes and dtypes of the weights stay the same.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = functools.partial(_in_float32, module.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return forward(x.float())


def _cpu_multiplies_bf16() -> bool:
    info = Path("/proc/cpuinfo")
    if platform.machine() not in {"x86_64", "AMD64"} or not info.is_file():
        return False
    flags = info.read_text(errors="replace")
    return "amx_bf16" in flags or "avx512_bf16" in flags
