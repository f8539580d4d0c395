"""Copies tiles to the device: all at once if they fit into its memory, else batch by batch."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kit.images.loading.to_device import to_device
from ensemble_kit.images.tiles.build import Tiles

Rows = npt.NDArray[np.int64]
Loader = Callable[[Iterable[Rows]], Iterator[Tensor]]

# Share of the device's free memory for tiles; the rest is for the network.
RESIDENT_SHARE = 0.4
AHEAD = 2

# Tiles -> their copy on a device: all folds and members of a process share one.
_resident: weakref.WeakKeyDictionary[Tiles, dict[str, Tensor]] = weakref.WeakKeyDictionary()


def open_loader(tiles: Tiles, device: torch.device) -> Loader:
    """A function from rows to uint8 batches on `device`.

    It takes an iterable of positions, (batch,) each, and yields tensors of shape
    (batch, height, width, channels) in the same order.
    """
    if device.type == "cpu":
        return lambda steps: (torch.from_numpy(gather(tiles, rows)) for rows in steps)
    if fits(tiles, device):
        pixels = _on_device(tiles, device)
        return lambda steps: (
            pixels[to_device(torch.from_numpy(np.array(rows)), device)] for rows in steps
        )
    return lambda steps: stream(tiles, steps, device)


def gather(tiles: Tiles, rows: Rows) -> npt.NDArray[np.uint8]:
    """A new array of some tiles, shape (batch, height, width, channels)."""
    return np.take(tiles.pixels, rows, axis=0)


def fits(tiles: Tiles, device: torch.device) -> bool:
    """Whether all tiles fit into the device's memory, or are there already."""
    if str(device) in _resident.get(tiles, {}):
        return True
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return tiles.pixels.nbytes <= RESIDENT_SHARE * free


def stream(tiles: Tiles, steps: Iterable[Rows], device: torch.device) -> Iterator[Tensor]:
    """Batches that a thread gathers in advance; they are copied to the device without waiting."""
    ready: queue.Queue[Tensor | BaseException | None] = queue.Queue(maxsize=AHEAD)
    stopped = threading.Event()
    pin = device.type == "cuda"

    def produce() -> None:
        try:
            for rows in steps:
                batch = torch.from_numpy(gather(tiles, rows))
                if not _put(ready, batch.pin_memory() if pin else batch, stopped):
                    return
            _put(ready, None, stopped)
        except BaseException as error:
            _put(ready, error, stopped)

    thread = threading.Thread(target=produce, name="tiles", daemon=True)
    thread.start()
    try:
        while (batch := ready.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch.to(device, non_blocking=pin)
    finally:
        stopped.set()
        thread.join()


def _put(
    ready: queue.Queue[Tensor | BaseException | None],
    item: Tensor | BaseException | None,
    stopped: threading.Event,
) -> bool:
    while not stopped.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _on_device(tiles: Tiles, device: torch.device) -> Tensor:
    copies = _resident.setdefault(tiles, {})
    if str(device) not in copies:
        pixels = torch.empty(tiles.pixels.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(tiles), 1024):
            rows = np.arange(start, min(start + 1024, len(tiles)))
            pixels[start : start + len(rows)] = torch.from_numpy(gather(tiles, rows)).to(device)
        copies[str(device)] = pixels
    return copies[str(device)]
