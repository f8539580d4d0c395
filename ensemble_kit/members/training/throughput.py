"""How fast a network trains and predicts on this machine: a few real steps, timed.

Measures; keeps nothing.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training.fit import Fit, Rows
from ensemble_kit.members.training.precision import TUNED, candidates, choose_device, number_format


def images_per_second(
    network: str, image_size: int, batch_size: int, *, device: str = "auto", precision: str = "auto"
) -> dict[str, float]:
    """Images per second of training and of predicting, data time included, as `train` and `predict`.

    The medians of three rounds of four batches of random tiles, after one that is not counted.
    """
    fit, rows = _trained(network, image_size, batch_size, 4, choose_device(device), precision)
    return {
        "train": _train_speed(fit),
        "predict": len(rows) / _median(lambda: fit.logits(rows), fit.device),
    }


@dataclasses.dataclass(frozen=True)
class Tried:
    """How a precision did: images per second once it runs, and how much longer its start took."""

    images_per_second: float
    start_seconds: float = 0.0

    def seconds(self, n_images: int) -> float:
        """For one job that trains on so many images in all."""
        return self.start_seconds + n_images / self.images_per_second


def fastest_precision(
    network: str,
    image_size: int,
    batch_size: int,
    device: torch.device,
    *,
    n_images: int,
    work: float = 0.0,
) -> tuple[str, dict[str, str]]:
    """The precision in which a job of `n_images` steps through them soonest, by a few steps of each.

    What a compiler takes counts where one is tried, and what timing kernels takes, twice: smaller
    batches have code and kernels of their own.

    Parameters
    ----------
    n_images : int
        Of one job, over all of its epochs.
    work : float
        Multiply-accumulates of everything that will be trained so; decides what is worth a try.

    Returns
    -------
    name : str
    failed : dict of name to reason
        What could not be tried; the plain precisions have to work.
    """
    names = candidates(device, work)
    if len(names) == 1:
        return names[0], {}
    tried: dict[str, Tried] = {}
    failed: dict[str, str] = {}
    for name in names:
        # cuDNN keeps the kernels that it took for a shape, however it came to them: timing them
        # shows only in batches of a size that the plain precisions did not have.
        size = batch_size + 2 * name.endswith(TUNED)
        try:
            fit = _trained(network, image_size, size, 2, device, name)[0]
        except Exception as error:
            if name == number_format(name):
                raise
            failed[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        else:
            tried[name] = _as_tried(fit, 2 * size)
    return min(tried, key=lambda name: tried[name].seconds(n_images)), failed


def _as_tried(fit: Fit, n_epoch: int) -> Tried:
    speed = _train_speed(fit)
    first = n_epoch / fit.training.history[0]["images_per_second"]
    late = max(0.0, first - n_epoch / speed)
    is_plain = fit.precision.name == fit.precision.number_format
    return Tried(speed, 0.0 if is_plain else 2 * late)


def _trained(
    network: str,
    image_size: int,
    batch_size: int,
    n_batches: int,
    device: torch.device,
    precision: str,
) -> tuple[Fit, npt.NDArray[np.int64]]:
    n = n_batches * batch_size
    pixels = np.random.default_rng(0).integers(
        0, 256, (n, image_size, image_size, 3), dtype=np.uint8
    )
    tiles = Tiles(pixels, np.arange(n).astype(str), "", image_size)
    recipe = Recipe(epochs=4, batch_size=batch_size, warmup_epochs=0)
    member = Member(network, pretrained=False, recipe=recipe)
    fit = Fit.start(member, tiles, 2, device=device, precision=precision, seed=0)
    rows, labels = np.arange(n), np.arange(n) % 2
    fit.run(Rows(rows, labels, rows[:2], labels[:2]), lambda _: None)
    return fit, rows


def _train_speed(fit: Fit) -> float:
    return statistics.median(row["images_per_second"] for row in fit.training.history[1:])


def _median(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(4):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
