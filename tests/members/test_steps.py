"""Optimizer steps with batches in parts, averages, and short trainings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training.fit import Fit, Rows
from ensemble_kit.members.training.losses import class_weights
from ensemble_kit.members.training.precision import Precision
from ensemble_kit.members.training.predict import predict_logits
from ensemble_kit.run import Run


def bright_tiles(n: int, seed: int = 0) -> tuple[Tiles, np.ndarray]:
    """Class 1 is brighter than class 0."""
    labels = np.arange(n) % 2
    noise = np.random.default_rng(seed).integers(0, 60, (n, 16, 16, 3))
    pixels = (noise + 120 * labels[:, None, None, None]).astype(np.uint8)
    return Tiles(pixels, np.arange(n).astype(str), "", 16), labels


def fitted(
    tiles: Tiles, labels: np.ndarray, recipe: Recipe, network: str = "tiny_cnn",
    printed: list[str] | None = None,
) -> Fit:  # fmt: skip
    member = Member(network, image_size=16, pretrained=False, drop_rate=0, recipe=recipe)
    fit = Fit.start(member, tiles, 2, device=torch.device("cpu"), precision="fp32", seed=0)
    rows = np.arange(len(tiles))
    fit.run(
        Rows(rows, labels, rows, labels),
        lambda _: None,
        [].append if printed is None else printed.append,
    )
    return fit


def test_the_loss_is_finite_with_more_parts_than_images() -> None:
    tiles, labels = bright_tiles(36)
    fit = fitted(tiles, labels, Recipe(epochs=1, batch_size=32, optim={"micro_batches": 8}))
    assert np.isfinite(fit.training.history[0]["train_loss"])
    assert fit.training.rate_factor == 1.0, "a NaN was rolled back"


@pytest.mark.parametrize(
    ("n", "batch_size", "requested", "computed_in"), [(8, 4, 4, 2), (7, 4, 2, 2), (3, 4, 2, 1)]
)
@pytest.mark.parametrize("regularize", [{}, {"average_last": 1}], ids=str)
def test_parts_have_two_images_with_batch_normalisation(
    n: int, batch_size: int, requested: int, computed_in: int, regularize: dict[str, int]
) -> None:
    # At 16 px its last maps hold one value per channel and image.
    tiles, labels = bright_tiles(n)
    recipe = Recipe(
        epochs=1, batch_size=batch_size, regularize=regularize, optim={"micro_batches": requested}
    )
    printed: list[str] = []
    fit = fitted(tiles, labels, recipe, network="resnet18", printed=printed)
    assert fit.training.micro_batches == computed_in
    assert [f"micro_batches = {requested}" in text for text in printed] == [True] * (
        computed_in < requested
    )


def test_parts_of_one_image_are_allowed_without_batch_normalisation() -> None:
    tiles, labels = bright_tiles(8)
    printed: list[str] = []
    recipe = Recipe(epochs=1, batch_size=4, optim={"micro_batches": 4})
    fit = fitted(tiles, labels, recipe, network="basic_cnn", printed=printed)
    assert fit.training.micro_batches == 4
    assert printed == []


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_weighted_loss_does_not_depend_on_the_number_of_parts(weights: str) -> None:
    tiles, _ = bright_tiles(32)
    labels = (np.arange(32) == 5).astype(np.int64)  # one rare image
    losses = [
        fitted(
            tiles,
            labels,
            Recipe(
                epochs=2,
                batch_size=32,
                class_weights=weights,
                optim={"micro_batches": n},
                augmentation="none",
            ),
            network="basic_cnn",  # without batch normalisation, which sees the parts
        ).training.history[-1]["train_loss"]
        for n in (1, 4)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_an_absent_class_has_weight_0() -> None:
    for kind in ("balanced", "effective"):
        weights = class_weights(np.array([0, 0, 0, 1]), 3, kind)
        assert weights[2] == 0
        assert weights[[0, 0, 0, 1]].sum() == pytest.approx(4)


def test_averaged_weights_learn_in_a_short_training() -> None:
    tiles, labels = bright_tiles(64)
    recipe = Recipe(
        epochs=8,
        batch_size=16,
        learning_rate=1e-2,
        augmentation="none",
        regularize={"ema_decay": 0.998},
    )
    assert fitted(tiles, labels, recipe).training.history[-1]["val_accuracy"] > 0.9


def test_undersampling_below_one_batch_still_trains() -> None:
    tiles, _ = bright_tiles(97)
    labels = (np.arange(97) < 10).astype(np.int64)
    fit = fitted(tiles, labels, Recipe(epochs=1, batch_size=32, sampling="undersample"))
    assert np.isfinite(fit.training.history[0]["train_loss"])


def test_a_run_without_a_test_part_ends(trained: Any, tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=16)
    train = trained.manifest.part("train")
    run = Run(tmp_path / "run")
    fit_members(
        [Member("tiny_cnn", image_size=16, recipe=recipe)], train, trained.folds, run, device="cpu"
    )
    assert run.predictions("oof").is_complete


@pytest.mark.parametrize("network", ["tiny_cnn", "cnn4", "mobilenetv3_small_050", "resnet18"])
def test_dense_heads_fit_every_kind_of_network(network: str) -> None:
    tiles, _ = bright_tiles(4)
    big = Tiles(np.repeat(np.repeat(tiles.pixels, 4, axis=1), 4, axis=2), tiles.sample_ids, "", 64)
    member = Member(network, image_size=64, pretrained=False, head=(8,), recipe=Recipe(epochs=1))
    fit = Fit.start(member, big, 2, device=torch.device("cpu"), precision="fp32", seed=0)
    assert fit.logits(np.arange(4)).shape == (4, 2)


def test_timm_opens_a_network_with_one_output(tmp_path: Path) -> None:
    import timm

    from ensemble_kit.members.jobs.fold_files import write_network

    tiles, _ = bright_tiles(4)
    big = Tiles(np.repeat(np.repeat(tiles.pixels, 2, axis=1), 2, axis=2), tiles.sample_ids, "", 32)
    member = Member("cnn3_sigmoid", image_size=32, recipe=Recipe(epochs=1))
    fit = Fit.start(member, big, 2, device=torch.device("cpu"), precision="fp32", seed=0)
    config = {"input_size": (3, 32, 32), "mean": fit.mean, "std": fit.std}
    write_network(tmp_path / "fold", fit.model, class_names=["a", "b"], input_config=config)
    again = timm.create_model(f"local-dir:{tmp_path / 'fold'}", pretrained=True).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), fit.model.eval()(x))


def test_validation_uses_one_view_and_the_training_precision() -> None:
    tiles, labels = bright_tiles(24)
    recipe = Recipe(epochs=2, batch_size=8, regularize={"tta": "dihedral"})
    fit, rows = fitted(tiles, labels, recipe), np.arange(24)
    rough = dataclasses.replace(fit, precision=Precision("bf16"))
    one_view = predict_logits(
        fit.model, tiles, rows, n_classes=2, device=fit.device, mean=fit.mean, std=fit.std
    )
    np.testing.assert_array_equal(fit.validation_logits(rows, fit.model), one_view)
    assert np.abs(fit.logits(rows) - one_view).max() > 1e-4, "stored logits average the views"
    np.testing.assert_array_equal(rough.logits(rows), fit.logits(rows))
    assert np.abs(rough.validation_logits(rows, fit.model) - one_view).max() > 1e-5


def test_images_that_are_not_square_are_not_transposed() -> None:
    rng = np.random.default_rng(0)
    wide = Tiles(rng.integers(0, 256, (5, 16, 32, 3), dtype=np.uint8), np.arange(5).astype(str), "", 16)  # fmt: skip
    member = Member("tiny_cnn", image_size=16, pretrained=False)
    fit = Fit.start(member, wide, 2, device=torch.device("cpu"), precision="fp32", seed=0)
    seen: list[torch.Size] = []
    fit.model.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2:]))
    rows = np.arange(5)
    np.testing.assert_array_equal(fit.logits(rows, "dihedral"), fit.logits(rows, "flips"))
    assert set(seen) == {(16, 32)}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_fused_steps_equal_single_steps(name: str) -> None:
    tiles, labels = bright_tiles(24)
    weights = []
    for fused in (True, False):
        fit = Fit.start(
            Member("tiny_cnn", image_size=16, recipe=Recipe(epochs=2, optim={"name": name})),
            tiles, 2, device=torch.device("cpu"), precision="fp32", seed=0,
        )  # fmt: skip
        assert all(group["fused"] for group in fit.training.optimizer.param_groups)
        for group in fit.training.optimizer.param_groups:
            group["fused"] = fused
        rows = np.arange(24)
        fit.run(Rows(rows, labels, rows, labels), lambda _: None)
        weights.append(torch.cat([p.detach().flatten() for p in fit.model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
