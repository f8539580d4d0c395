"""Copies small tensors to a device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`, after the work that is queued there.

    A copy from ordinary memory would wait until that work is done.

    Examples
    --------
    >>> to_device(torch.ones(2), torch.device("cpu")).tolist()
    [1.0, 1.0]
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
