"""How fast a network trains and predicts on this machine: a few real steps, timed.

Measures; keeps nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ensemble_kit.images.tiles import Tiles
from ensemble_kit.members.fit import Fit, Rows
from ensemble_kit.members.precision import choose_device
from ensemble_kit.members.recipe import Member, Recipe


def images_per_second(
    network: str, image_size: int, batch_size: int, *, device: str = "auto", precision: str = "auto"
) -> dict[str, float]:
    """Images per second of training and of predicting, data time included, as `train` and `predict`.

    The median of three epochs of four batches of random tiles, after one that is not counted.
    """
    n = 4 * batch_size
    pixels = np.random.default_rng(0).integers(
        0, 256, (n, image_size, image_size, 3), dtype=np.uint8
    )
    tiles = Tiles(pixels, np.arange(n).astype(str), "", image_size)
    member = Member(
        network, pretrained=False, recipe=Recipe(epochs=4, batch_size=batch_size, warmup_epochs=0)
    )
    where = choose_device(device)
    fit = Fit.start(member, tiles, 2, device=where, precision=precision, seed=0)
    rows, labels = np.arange(n), np.arange(n) % 2
    fit.run(Rows(rows, labels, rows[:2], labels[:2]), lambda _: None)
    trained = [row["images_per_second"] for row in fit.training.history[1:]]
    return {
        "train": statistics.median(trained),
        "predict": n / _median(lambda: fit.logits(rows), where),
    }


def _median(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(4):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
