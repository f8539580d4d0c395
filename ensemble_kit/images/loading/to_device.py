"""Small tensors to a device while it works: the host goes on at once.

Knows nothing of what they hold.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`, in order with the work that is queued there.

    Copied from ordinary memory, it would wait until all of that is done.

    Examples
    --------
    >>> sent(torch.ones(2), torch.device("cpu")).tolist()
    [1.0, 1.0]
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
