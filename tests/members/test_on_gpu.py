"""Tests that need a GPU: precisions, full memory, waits of the host, resident tiles."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ensemble_kit.images.augmentation.presets import PRESETS
from ensemble_kit.images.loading import tile_loader as loader
from ensemble_kit.images.loading.batches import Batches
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training import loop as train_module
from ensemble_kit.members.training.fit import Fit, Rows
from ensemble_kit.members.training.predict import predict_logits
from ensemble_kit.members.training.weight_averaging import Average

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
GPU = torch.device("cuda")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Limit this process to 1.5 GiB of the GPU's memory."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.5 * 2**30 / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def tiles_of(n: int, size: int) -> tuple[Tiles, np.ndarray]:
    """Class 1 is brighter than class 0."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(0).integers(0, 60, (n, size, size, 3))
    pixels = (noise + 120 * labels[:, None, None, None]).astype(np.uint8)
    return Tiles(pixels, np.arange(n).astype(str), "", size), labels


def trained(network: str, n: int, size: int, precision: str, **recipe: object) -> Fit:
    tiles, labels = tiles_of(n, size)
    member = Member(network, image_size=size, pretrained=False, recipe=Recipe(**recipe))
    fit = Fit.start(member, tiles, 2, device=GPU, precision=precision, seed=0)
    rows = np.arange(n)
    fit.run(Rows(rows, labels, rows, labels), lambda _: None)
    return fit


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_number_format_learns_and_stored_logits_equal_those_of_a_cpu(precision: str) -> None:
    fit = trained("tiny_resnet", 64, 32, precision, epochs=8, batch_size=16, learning_rate=3e-3)
    assert fit.training.history[-1]["val_accuracy"] == 1.0
    rows = np.arange(64)
    on_cpu = predict_logits(
        copy.deepcopy(fit.model).cpu(), fit.tiles, rows, n_classes=2, device=torch.device("cpu"),
        mean=fit.mean, std=fit.std,
    )  # fmt: skip
    np.testing.assert_allclose(fit.logits(rows), on_cpu, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("average", [{"ema_decay": 0.9}, {"average_last": 2}])
def test_averaged_weights_learn_on_a_gpu(average: dict[str, float]) -> None:
    recipe = {"epochs": 8, "batch_size": 16, "learning_rate": 3e-3, "regularize": average}
    fit = trained("tiny_resnet", 64, 32, "bf16", **recipe)
    assert fit.training.averaged is not None
    assert fit.training.averaged.count == (32 if "ema_decay" in average else 2)
    assert fit.training.history[-1]["val_accuracy"] == 1.0


@pytest.mark.usefixtures("little_memory")
def test_row_36_a_full_gpu_gets_the_batch_in_parts() -> None:
    fit = trained("resnet18", 128, 224, "fp32", epochs=1, batch_size=128, learning_rate=1e-4)
    assert fit.training.micro_batches > 1
    assert np.isfinite(fit.training.history[0]["train_loss"])


@pytest.mark.parametrize("name", PRESETS)
def test_batches_and_averages_do_not_wait_for_the_gpu(name: str) -> None:
    tiles, labels = tiles_of(32, 32)
    rows = np.arange(32)
    batches = Batches(
        tiles, rows, labels, batch_size=16, device=GPU, mean=[0.5] * 3, std=[0.2] * 3,
        augmentation=PRESETS[name],
    )  # fmt: skip
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(GPU)
    average = Average(model, 0.9)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, _, _ in batches.epoch(0):
            model(images)
            average.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_host_does_not_wait_between_the_steps_of_an_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_steps, taken, step = 4, 0, train_module.take_step

    def counted(*args: object) -> object:
        nonlocal taken
        out = step(*args)
        taken += 1
        torch.cuda.set_sync_debug_mode("default" if taken % n_steps == 0 else "error")
        return out

    monkeypatch.setattr(train_module, "take_step", counted)
    try:
        recipe = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3}
        trained("tiny_resnet", 16 * n_steps, 32, "bf16", **recipe)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert taken == 2 * n_steps


def test_streamed_tiles_equal_resident_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, _ = tiles_of(64, 32)
    steps = [np.arange(8 * i, 8 * i + 8) for i in range(8)]
    resident = [b.cpu() for b in loader.open_loader(tiles, GPU)(steps)]
    monkeypatch.setattr(loader, "fits", lambda *_: False)
    streamed = [b.cpu() for b in loader.open_loader(tiles, GPU)(steps)]
    assert all(torch.equal(a, b) for a, b in zip(resident, streamed, strict=True))
