"""Training on a fake GPU: devices of tensors, and waits of the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kit.images.augmentation.presets import PRESETS
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training import loop as train_module
from ensemble_kit.members.training.fit import Fit, Rows

pytestmark = pytest.mark.slow

N_TRAIN, N_VALIDATION, BATCH = 21, 4, 8


def fitted(
    device: str, precision: str = "fp32", member: dict[str, Any] | None = None, **recipe: Any
) -> Fit:
    n = N_TRAIN + N_VALIDATION
    pixels = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    tiles = Tiles(pixels, np.arange(n).astype(str), "", 16)
    settings = {"epochs": 2, "batch_size": BATCH, "learning_rate": 1e-3, "warmup_epochs": 0}
    made = Member(
        **{"network": "tiny_resnet", "pretrained": False, "recipe": Recipe(**{**settings, **recipe}), **(member or {})}
    )  # fmt: skip
    fit = Fit.start(made, tiles, 2, device=torch.device(device), precision=precision, seed=0)
    rows, labels = np.arange(n), np.arange(n) % 2
    parts = [a[s] for s in (slice(N_TRAIN), slice(N_TRAIN, None)) for a in (rows, labels)]
    fit.run(Rows(*parts), lambda _: None)
    return fit


@pytest.fixture
def in_epochs(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """Waits of the host inside training epochs, each with the number of steps before it."""
    found: list[tuple[int, Any]] = []
    taken, epoch, step = [0], train_module._train_epoch, train_module.take_step

    def counted_step(*args: Any) -> Any:
        out = step(*args)
        taken[0] += 1
        return out

    def counted_epoch(*args: Any) -> Any:
        taken[0], wait = 0, gpu.wait

        def counted(*args: Any) -> None:
            wait(*args)
            found.append((taken[0], gpu.waits[-1]))

        gpu.wait = counted
        try:
            return epoch(*args)
        finally:
            gpu.wait = wait

    monkeypatch.setattr(train_module, "take_step", counted_step)
    monkeypatch.setattr(train_module, "_train_epoch", counted_epoch)
    return found


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fp16": {"precision": "fp16"},
    "bf16": {"precision": "bf16"},
    "average": {"regularize": {"ema_decay": 0.9}},
    "last average": {"regularize": {"average_last": 1}},
    "clipped": {"optim": {"clip_norm": 1.0}},
    "fp16 clipped": {"precision": "fp16", "optim": {"clip_norm": 1.0}},
    "parts": {"optim": {"micro_batches": 3}},
    "layer decay": {"optim": {"layer_decay": 0.7}},
    "lamb": {"optim": {"name": "lamb"}},
    "mixup": {"regularize": {"mixup": 0.2}},
    "cutmix": {"regularize": {"cutmix": 1.0}},
    "focal, weighted": {"class_weights": "balanced", "regularize": {"focal_gamma": 2.0}},
    "smoothed, weighted": {"class_weights": "effective", "label_smoothing": 0.1},
    "head first": {"epochs": 3, "optim": {"head_only_epochs": 1}},
    "cached features": {"epochs": 3, "optim": {"head_only_epochs": 1, "cache_features": True}},
    "own head": {"member": {"head": [8]}},
    "lab": {"member": {"color": "lab"}},
    "hed": {"member": {"color": "hed"}},
    "depth-wise": {"member": {"network": "efficientnet_b0"}, "epochs": 1},
    **{f"augmented: {name}": {"augmentation": name} for name in PRESETS},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_an_epoch_waits_for_the_gpu_after_its_last_step_only(
    in_epochs: list[tuple[int, Any]], recipe: dict[str, Any]
) -> None:
    fit = fitted("cuda", **recipe)
    assert {p.device.type for p in fit.model.parameters()} == {"cuda"}
    early = [wait for steps, wait in in_epochs if steps < 3]
    assert not early, early[0].callers
    assert len(in_epochs) == len(fit.training.history), "one wait an epoch"
