"""Measures memory: of a process on the host, and of a CUDA device.

All calls of `torch.cuda` for memory are here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ensemble_kit.memory import field

# Memory of the driver per process, in addition to torch's memory (approximate).
GPU_CONTEXT = 700 * 2**20


def host_peak() -> int:
    """Peak host memory of this process in bytes, without shared files."""
    status = Path("/proc/self/status")
    peak, shared = field(status, "VmHWM:"), field(status, "RssFile:")
    if peak is not None:
        return peak - (shared or 0)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def gpu_peak(number: int | None = None) -> tuple[int, int]:
    """Peak memory of this process on a GPU, and the GPU memory for such processes.

    Both in bytes; (0, 0) if no GPU is used. `number` is the index of the GPU; by default the
    current one.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0, 0
    free, _ = torch.cuda.mem_get_info(number)
    held = torch.cuda.memory_reserved(number) + GPU_CONTEXT
    return int(torch.cuda.max_memory_reserved(number) + GPU_CONTEXT), int(free + held)


def visible_gpus() -> list[str]:
    """The GPUs that this process can use, as in CUDA_VISIBLE_DEVICES."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    n_gpus = torch.cuda.device_count()
    return given.split(",")[:n_gpus] if given else [str(i) for i in range(n_gpus)]
