"""The batches of each epoch: tiles are gathered, copied to the device and augmented.

The batches depend on the seed and the number of the epoch only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kit.arrays import frozen
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.images.augmentation.augment import Augmentation, augment_batch
from ensemble_kit.images.loading.sampling import check_sampling, epoch_length, epoch_order
from ensemble_kit.images.loading.tile_loader import open_loader
from ensemble_kit.images.loading.to_device import to_device
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.seeding import derive_seed

Batch = tuple[Tensor, Tensor, Tensor]


class Batches:
    """Batches over some rows of the tiles.

    Parameters
    ----------
    tiles : Tiles
    rows : array of int, shape (n,)
        Positions in `tiles`: see `Tiles.rows`.
    labels : array of int, shape (n,)
        One per row.
    batch_size : int
        Largest number of images per batch. An epoch is divided evenly into as few batches as
        possible: a small last batch would have too much weight.
    device : str or torch.device
        Tiles are copied there if they fit; else they are streamed from the memory map.
    mean, std : sequence of float
        In units of 0 .. 1 (or of the colour space), one per channel.
    augmentation : Augmentation or None
    sampling : {"none", "oversample", "undersample", "balanced"}
        For training only; see `ensemble_kit.images.loading.sampling`.
    shuffle : bool
        Without it, and with sampling "none", batches follow `rows`.
    drop_single : bool
        Leave out the last batch if it has one image: it has no batch statistics.
    seed : int
    size : int or None
        Height of the images in pixels, if other than that of the tiles.
    color : {"rgb", "grayscale", "hed", "lab"}
        Colour space of the network's input.

    Examples
    --------
    >>> pixels = np.zeros((5, 8, 8, 3), np.uint8)
    >>> tiles = Tiles(pixels, np.array(list("abcde")), "", 8)
    >>> batches = Batches(tiles, [0, 2, 4], [0, 1, 0], batch_size=2, device="cpu", mean=[0] * 3,
    ...                   std=[1] * 3, shuffle=False)
    >>> len(batches), [positions.tolist() for _, _, positions in batches.epoch(0)]
    (2, [[0, 1], [2]])
    """

    def __init__(
        self,
        tiles: Tiles,
        rows: npt.ArrayLike,
        labels: npt.ArrayLike,
        *,
        batch_size: int,
        device: str | torch.device,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
        sampling: str = "none",
        shuffle: bool = True,
        drop_single: bool = False,
        seed: int = 0,
        size: int | None = None,
        color: str = "rgb",
    ) -> None:
        self.rows = frozen(rows, np.int64)
        self.labels = frozen(labels, np.int64)
        _check(self.rows, self.labels, len(tiles), batch_size)
        check_sampling(sampling)
        self.batch_size, self.seed = batch_size, seed
        self.device = torch.device(device)
        self._sampling, self._shuffle, self._drop_single = sampling, shuffle, drop_single
        self._mean, self._std, self._size, self._color = list(mean), list(std), size, color
        self._augmentation = augmentation
        self._load = open_loader(tiles, self.device)

    def __len__(self) -> int:
        return len(self._sizes())

    def _sizes(self) -> list[int]:
        """The number of images in each batch; they differ by at most one, larger ones first."""
        n = epoch_length(self.labels, self._sampling)
        n_batches = -(-n // self.batch_size)
        each, more = divmod(n, n_batches)
        sizes = [each + (i < more) for i in range(n_batches)]
        return sizes[:-1] if self._drop_single and sizes[0] > sizes[-1] == 1 else sizes

    def positions(self, epoch: int) -> npt.NDArray[np.int64]:
        """The positions in `rows` that epoch `epoch` visits, in order; shape (n_visits,)."""
        return epoch_order(
            self.labels,
            self._sampling,
            shuffle=self._shuffle,
            seed=derive_seed(self.seed, "order", epoch),
        )

    def steps(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """`positions(epoch)`, divided into batches."""
        ends = np.cumsum(self._sizes())
        return np.split(self.positions(epoch)[: ends[-1]], ends[:-1])

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches `(images, labels, positions)` of one epoch, all on the device.

        `images` is float32 (batch, channels, height, width), normalised; `labels` int64 (batch,);
        `positions` int64 (batch,) into `rows`. They do not depend on earlier epochs.
        """
        steps = self.steps(epoch)
        tiles = self._load(self.rows[step] for step in steps)
        for i, (step, pixels) in enumerate(zip(steps, tiles, strict=True)):
            draws = torch.Generator().manual_seed(derive_seed(self.seed, "augment", epoch, i))
            images = augment_batch(
                pixels,
                self._augmentation,
                generator=draws,
                mean=self._mean,
                std=self._std,
                size=self._size,
                color=self._color,
            )
            yield images, self._send(self.labels[step]), self._send(step)

    def _send(self, array: npt.NDArray[np.int64]) -> Tensor:
        return to_device(torch.from_numpy(np.array(array)), self.device)


def _check(
    rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], n_tiles: int, batch_size: int
) -> None:
    if rows.shape != labels.shape or rows.ndim != 1 or not len(rows):
        raise DataError(
            f"There are {rows.shape} rows and {labels.shape} labels",
            "each row needs one label",
            "Take both from the same part of the manifest",
        )
    if rows.min() < 0 or rows.max() >= n_tiles:
        raise DataError(
            f"Rows are between {rows.min()} and {rows.max()}",
            f"rows are positions in the tiles, from 0 to {n_tiles - 1}",
            "Use tiles.rows(sample_ids)",
        )
    if batch_size < 1:
        raise UsageError(
            f"Invalid batch size {batch_size}", "a batch needs at least one image", "Use e.g. 32"
        )
