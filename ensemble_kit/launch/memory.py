"""How much memory a process took of the host, and how much there is of a CUDA card.

Reads counters; decides nothing. The calls of `torch.cuda` stand here alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ensemble_kit.memory import field

# What the driver keeps per process beside torch's own memory, roughly.
CARD_CONTEXT = 700 * 2**20


def host_peak() -> int:
    """The most bytes of host memory that this process held, without files that all share."""
    status = Path("/proc/self/status")
    peak, shared = field(status, "VmHWM:"), field(status, "RssFile:")
    if peak is not None:
        return peak - (shared or 0)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def card_peak(number: int | None = None) -> tuple[int, int]:
    """What this process took of a CUDA card at most, and what the card holds for processes like it.

    Both in bytes; (0, 0) where no card is in use. The card is the current one unless numbered.
    Not tried on a GPU yet.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0, 0
    free, _ = torch.cuda.mem_get_info(number)
    held = torch.cuda.memory_reserved(number) + CARD_CONTEXT
    return int(torch.cuda.max_memory_reserved(number) + CARD_CONTEXT), int(free + held)


def visible_cards() -> list[str]:
    """Names of the CUDA cards that this process sees, as CUDA_VISIBLE_DEVICES would list them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    n_cards = torch.cuda.device_count()
    return given.split(",")[:n_cards] if given else [str(i) for i in range(n_cards)]
