"""Releasing cached memory."""

from __future__ import annotations

import ctypes
import gc

import torch


def release_cached_memory(device: torch.device) -> None:
    """Release unused cached memory to the GPU, or to the system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
