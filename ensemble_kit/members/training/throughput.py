"""The speed of training and prediction of a network on this machine: a few steps, timed."""

from __future__ import annotations

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
from ensemble_kit.members.training.precision import candidates, choose_device


def images_per_second(
    network: str, image_size: int, batch_size: int, *, device: str = "auto", precision: str = "auto"
) -> dict[str, float]:
    """Images per second of training and of prediction, data loading included.

    Returns
    -------
    dict
        `train` and `predict`: medians of three rounds of four batches, after a warm-up round.
    """
    fit, rows = _trained(network, image_size, batch_size, 4, choose_device(device), precision)
    return {
        "train": _train_speed(fit),
        "predict": len(rows) / _median(lambda: fit.logits(rows), fit.device),
    }


def fastest_precision(network: str, image_size: int, batch_size: int, device: torch.device) -> str:
    """The precision with the most training images per second, measured over a few steps."""
    names = candidates(device)
    if len(names) == 1:
        return names[0]
    speeds = {
        name: _train_speed(_trained(network, image_size, batch_size, 2, device, name)[0])
        for name in names
    }
    return max(names, key=speeds.__getitem__)


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
