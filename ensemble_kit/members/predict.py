"""Logits of a network for given tiles: float32, evaluation mode, no augmentation.

The same numbers come out whatever the batch they stand in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ensemble_kit.arrays import Array
from ensemble_kit.images.batches import Batches
from ensemble_kit.images.tiles import Tiles


def predict_logits(
    model: nn.Module,
    tiles: Tiles,
    rows: npt.NDArray[np.int64],
    *,
    n_classes: int,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 64,
) -> Array:
    """Logits of the tiles at `rows`, in that order.

    Returns
    -------
    array of float32, shape (n_rows, n_classes)
    """
    logits = np.empty((len(rows), n_classes), dtype=np.float32)
    batches = Batches(
        tiles, rows, np.zeros(len(rows), dtype=np.int64), batch_size=batch_size, device=device,
        mean=mean, std=std, shuffle=False,
    )  # fmt: skip
    model.eval()
    with torch.inference_mode():
        for images, _, positions in batches.epoch(0):
            images = images.contiguous(memory_format=torch.channels_last)
            logits[positions.cpu().numpy()] = model(images).float().cpu().numpy()
    return logits
