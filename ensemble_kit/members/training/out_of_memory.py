"""Memory that is free but held back goes back to the device, or to the system."""

from __future__ import annotations

import ctypes
import gc

import torch


def give_back(device: torch.device) -> None:
    """Give memory that is free but held back to the device, or to the system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
