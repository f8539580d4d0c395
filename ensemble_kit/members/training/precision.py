"""Where and in which number format a member trains: a device, and autocast where it pays.

Does not train; predictions that are kept are always computed in float32.
"""

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
# How else a card may be told to compute: steps compiled, convolutions timed for the fastest kernel.
COMPILED, TUNED = "+compiled", "+tuned"
# Multiply-accumulates of a member's whole training from which trying a compiler may pay on a card.
WORTH_COMPILING = 1e16


@dataclasses.dataclass(frozen=True)
class Precision:
    """The dtype of autocast, or float32 for none; fp16 needs its losses scaled.

    A name that ends in `+compiled` has the steps compiled too, one in `+tuned` has cuDNN time its
    kernels for each shape and keep the fastest. Both are tried on CUDA cards only, where they may
    pay for the time that they take first; neither has been run on one yet.
    """

    name: str

    @property
    def number_format(self) -> str:
        return number_format(self.name)

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.number_format]

    @property
    def autocasts(self) -> bool:
        return self.number_format != "fp32"

    @property
    def scales_loss(self) -> bool:
        return self.number_format == "fp16"

    @property
    def compiles(self) -> bool:
        return self.name.endswith(COMPILED)

    @property
    def tunes(self) -> bool:
        return self.name.endswith(TUNED)


def number_format(name: str) -> str:
    """The number format alone of a precision's name.

    Examples
    --------
    >>> number_format("bf16+tuned")
    'bf16'
    """
    return name.partition("+")[0]


FULL = Precision("fp32")


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` is the first of CUDA, MPS and CPU that is there.

    Raises
    ------
    UsageError
        torch knows no such device.
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
            "A device has a name that torch knows", f"got '{name}'", did_you_mean(name, known)
        ) from error
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not there.get(device.type, False):
        raise EnvironmentFault(
            "A run needs the device it is asked to use",
            f"'{name}' is not available here ({torch.cuda.device_count()} CUDA devices)",
            "Use --device cpu, or check the driver and CUDA_VISIBLE_DEVICES",
        )
    return device


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision called `name`; `auto` follows a fixed rule, so that a machine decides alike twice.

    On CUDA bf16 where the card has it, else fp16. On CPUs bf16 where the processor multiplies it
    natively, else fp32.

    Raises
    ------
    UsageError
        An unknown name.
    """
    if name != "auto":
        how = name.removeprefix(number_format(name))
        if number_format(name) not in PRECISIONS or how not in {"", COMPILED, TUNED}:
            raise UsageError(
                "A precision has a known name",
                f"got '{name}'",
                did_you_mean(name, ["auto", *PRECISIONS]),
            )
        return Precision(name)
    if device.type == "cuda":
        # Older cards emulate it, slower than either of the others.
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bf16" if has_bf16 else "fp16")
    return Precision("bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "fp32")


def candidates(device: torch.device, work: float = 0.0) -> list[str]:
    """Names of the precisions that may pay on this device, for a probe to choose from.

    `work` are the multiply-accumulates of all that is to be trained so.
    """
    chosen = choose_precision("auto", device).name
    names = [chosen] if chosen == "fp32" else [chosen, "fp32"]
    if device.type == "cuda":
        names.append(chosen + TUNED)
        if work >= WORTH_COMPILING:
            names.append(chosen + COMPILED)
    return names


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


@contextlib.contextmanager
def tuned_convolutions(tuned: bool) -> Iterator[None]:
    """Have cuDNN time its kernels for each new shape inside the block, or take its first guess."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = tuned
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def keep_depthwise_in_float32(model: nn.Module) -> None:
    """Compute depth-wise convolutions in float32 inside CPU autocast: in bf16 they are slower there.

    Only how they are computed changes; names, shapes and dtypes of the weights stay.
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
