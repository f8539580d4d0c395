"""Logits and pooled features of a network for given tiles: float32, evaluation mode, not augmented.

They do not depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ensemble_kit.arrays import Array, log_softmax
from ensemble_kit.faults import is_out_of_memory
from ensemble_kit.images.loading.batches import Batches
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.members.networks.build import logits_and_features, pooled_features
from ensemble_kit.members.training.precision import FULL, Precision, tensor_float32

# Views of test-time augmentation: (mirror left-right, mirror up-down, transpose).
TTA_VIEWS = {
    "none": ((False, False, False),),
    "flips": tuple((h, v, False) for h in (False, True) for v in (False, True)),
    "dihedral": tuple(
        (h, v, t) for h in (False, True) for v in (False, True) for t in (False, True)
    ),
}


def views_of(tta: str, *, is_square: bool) -> tuple[tuple[bool, bool, bool], ...]:
    """The TTA views that `tta` averages over; images that are not square are not transposed.

    Examples
    --------
    >>> len(views_of("dihedral", is_square=True)), len(views_of("dihedral", is_square=False))
    (8, 4)
    """
    return tuple(view for view in TTA_VIEWS[tta] if is_square or not view[2])


def predict_logits(
    model: nn.Module,
    tiles: Tiles,
    rows: npt.NDArray[np.int64],
    *,
    n_classes: int,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    color: str = "rgb",
    tta: str = "none",
    batch_size: int = 64,
    precision: Precision = FULL,
) -> Array:
    """Logits of the tiles at `rows`, in that order, averaged over the views of `tta`.

    Parameters
    ----------
    precision : Precision
        Full for stored logits; that of training for validation logits.

    Returns
    -------
    array of float32, shape (n_rows, n_classes)
    """
    found = _apply(
        model, model, tiles, rows,
        device=device, mean=mean, std=std, color=color, tta=tta, batch_size=batch_size,
        precision=precision,
    )  # fmt: skip
    return np.empty((0, n_classes), dtype=np.float32) if found is None else found


def predict_features(
    model: nn.Module,
    tiles: Tiles,
    rows: npt.NDArray[np.int64],
    *,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    color: str = "rgb",
    tta: str = "none",
    batch_size: int = 64,
    precision: Precision = FULL,
) -> Array:
    """Pooled features of the tiles at `rows`, in that order, averaged over the views of `tta`.

    Returns
    -------
    array of float32, shape (n_rows, n_features)
        The input of the classifier. Each network has its own feature space: columns of two networks
        do not correspond, even if they are two folds of one member.
    """
    found = _apply(
        model, lambda images: pooled_features(model, images), tiles, rows,
        device=device, mean=mean, std=std, color=color, tta=tta, batch_size=batch_size,
        precision=precision,
    )  # fmt: skip
    return np.empty((0, 0), dtype=np.float32) if found is None else found


def predict_both(
    model: nn.Module,
    tiles: Tiles,
    rows: npt.NDArray[np.int64],
    *,
    n_classes: int,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    color: str = "rgb",
    tta: str = "none",
    batch_size: int = 64,
) -> tuple[Array, Array]:
    """Logits and pooled features of the same forward passes.

    Returns
    -------
    array of float32, shape (n_rows, n_classes)
    array of float32, shape (n_rows, n_features)
    """
    found = _apply(
        model, lambda images: logits_and_features(model, images), tiles, rows,
        device=device, mean=mean, std=std, color=color, tta=tta, batch_size=batch_size,
        precision=FULL,
    )  # fmt: skip
    both = np.empty((0, n_classes), dtype=np.float32) if found is None else found
    return both[:, :n_classes], both[:, n_classes:]


def _apply(
    model: nn.Module,
    forward: Callable[[Tensor], Tensor],
    tiles: Tiles,
    rows: npt.NDArray[np.int64],
    *,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    color: str,
    tta: str,
    batch_size: int,
    precision: Precision,
) -> Array | None:
    """`forward` of each row, shape (n_rows, n_columns); None without rows."""
    if not len(rows):
        return None
    batches = Batches(
        tiles,
        rows,
        np.zeros(len(rows), dtype=np.int64),
        batch_size=batch_size,
        device=device,
        mean=mean,
        std=std,
        color=color,
        shuffle=False,
    )
    model.eval()
    autocast = torch.autocast(device.type, dtype=precision.dtype, enabled=precision.autocasts)
    with torch.inference_mode(), tensor_float32(False), autocast:
        parts = [_in_parts(forward, images, tta).cpu().numpy() for images, _, _ in batches.epoch(0)]
    return np.concatenate(parts)


def _in_parts(forward: Callable[[Tensor], Tensor], images: Tensor, tta: str) -> Tensor:
    """The predictions for a batch, averaged over views; in halves if memory runs out."""
    try:
        views = views_of(tta, is_square=images.shape[2] == images.shape[3])
        predictions = [forward(apply_view(images, *view)).float() for view in views]
        return torch.stack(predictions).mean(dim=0)
    except (RuntimeError, MemoryError) as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
    return torch.cat([_in_parts(forward, half, tta) for half in images.tensor_split(2)])


def apply_view(images: Tensor, left_right: bool, up_down: bool, transpose: bool) -> Tensor:
    """Images (n, channels, height, width), mirrored and then transposed."""
    out = _mirrored(images, left_right, up_down)
    out = out.transpose(2, 3) if transpose else out
    return out.contiguous(memory_format=torch.channels_last)


def undo_view(maps: Tensor, left_right: bool, up_down: bool, transpose: bool) -> Tensor:
    """Maps (..., height, width) of transformed images, in the orientation of the original images.

    Examples
    --------
    >>> image = torch.arange(4.0).view(1, 1, 2, 2)
    >>> bool((undo_view(apply_view(image, True, False, True), True, False, True) == image).all())
    True
    """
    return _mirrored(maps.transpose(-2, -1) if transpose else maps, left_right, up_down)


def _mirrored(images: Tensor, left_right: bool, up_down: bool) -> Tensor:
    axes = [axis for axis, flipped in ((-1, left_right), (-2, up_down)) if flipped]
    return images.flip(axes) if axes else images


def validation_metrics(logits: Array, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Log loss (nats), accuracy, balanced accuracy over the classes present, and number of
    predicted classes, of 2-D logits.
    """
    log_proba = log_softmax(logits)
    predictions = log_proba.argmax(axis=1)
    hits = predictions == labels
    return {
        "log_loss": float(-log_proba[np.arange(len(labels)), labels].mean()),
        "accuracy": float(hits.mean()),
        "balanced_accuracy": float(np.mean([hits[labels == c].mean() for c in np.unique(labels)])),
        "predicted_classes": len(np.unique(predictions)),
    }
