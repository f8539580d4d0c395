"""The peak memory of a job's process: on the GPU if it trains on one, else on the host."""

from __future__ import annotations

from pathlib import Path

import torch

from ensemble_kit.memory import field

STATUS = Path("/proc/self/status")


def peak_mib(device: torch.device) -> float | None:
    """Peak memory in MiB since the process began; None if unknown, e.g. outside of Linux."""
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device) if torch.cuda.is_initialized() else 0
    else:
        used = field(STATUS, "VmHWM:") or 0
    return round(used / 2**20, 1) if used else None
