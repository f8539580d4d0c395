"""Colour spaces, compared with a second implementation and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from ensemble_kit.errors import UsageError
from ensemble_kit.images.augmentation.augment import augment_batch
from ensemble_kit.images.augmentation.color_space import (
    COLORS,
    color_channels,
    color_statistics,
    in_color,
)
from ensemble_kit.images.augmentation.presets import PRESETS

# Ruifrok & Johnston, Anal Quant Cytol Histol 23:291-299, 2001, table 2: optical densities of red,
# green and blue for haematoxylin, eosin and DAB.
RUIFROK_JOHNSTON = [[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]]
TILES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8))


def converted(tiles: torch.Tensor, color: str) -> torch.Tensor:
    return in_color(tiles.permute(0, 3, 1, 2).float(), color)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_hed_solves_beer_s_law() -> None:
    got = converted(TILES, "hed").permute(0, 2, 3, 1)
    for i, row, column in ((0, 0, 0), (2, 3, 7), (4, 7, 1)):
        density = [-math.log10((int(v) + 1) / 256) for v in TILES[i, row, column]]
        # density = amounts @ vectors
        want = np.linalg.solve(np.array(RUIFROK_JOHNSTON).T, density)
        np.testing.assert_allclose(got[i, row, column].numpy(), want, atol=1e-5)


@pytest.mark.parametrize("stain", [0, 1, 2])
def test_a_pure_stain_is_in_one_channel_only(stain: int) -> None:
    amounts = torch.zeros(3)
    amounts[stain] = 0.6
    density = amounts @ torch.tensor(RUIFROK_JOHNSTON)
    pixel = 10**-density * 256 - 1
    np.testing.assert_allclose(
        in_color(pixel.view(1, 3, 1, 1), "hed").flatten().numpy(), amounts.numpy(), atol=1e-4
    )


# sRGB at D65, as Lindbloom's calculator (brucelindbloom.com) gives them.
KNOWN_LAB = {
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 0, 0): (53.2408, 80.0925, 67.2032),
    (0, 255, 0): (87.7347, -86.1827, 83.1793),
    (0, 0, 255): (32.2970, 79.1875, -107.8602),
    (119, 119, 119): (50.0344, 0.0, 0.0),
    (50, 50, 50): (20.7880, 0.0, 0.0),
    (10, 10, 10): (2.7417, 0.0, 0.0),
}


@pytest.mark.parametrize(("rgb", "lab"), KNOWN_LAB.items(), ids=str)
def test_lab_values_are_the_published_ones(
    rgb: tuple[int, int, int], lab: tuple[float, float, float]
) -> None:
    got = in_color(torch.tensor(rgb).float().view(1, 3, 1, 1), "lab").flatten()
    np.testing.assert_allclose(got.numpy(), lab, atol=0.01)


def test_grayscale_is_pillow_s_luma() -> None:
    got = converted(TILES, "grayscale")[:, 0] * 255
    for tile, grey in zip(TILES.numpy(), got.numpy(), strict=True):
        np.testing.assert_allclose(np.asarray(Image.fromarray(tile).convert("L")), grey, atol=0.51)


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("preset", ["none", *sorted(PRESETS)])
def test_images_are_augmented_in_rgb_and_then_converted(color: str, preset: str) -> None:
    unit = {"mean": [0.0] * 3, "std": [1 / 255] * 3}
    rgb = augment_batch(TILES, PRESETS[preset], generator=generator(), **unit)
    n = color_channels(color, 3)
    mean, std = [0.3, 0.2, 0.1][:n], [2.0, 0.5, 0.7][:n]
    got = augment_batch(
        TILES, PRESETS[preset], generator=generator(), mean=mean, std=std, color=color
    )
    shown = rgb / 255 if color == "rgb" else in_color(rgb, color)
    want = (shown - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("color", COLORS)
def test_each_picture_of_a_pair_is_converted_separately(color: str) -> None:
    pair = torch.cat([TILES, TILES.flip(0)], dim=3)
    first, second = converted(TILES, color), converted(TILES.flip(0), color)
    torch.testing.assert_close(converted(pair, color), torch.cat([first, second], dim=1))
    assert len(first[0]) * 2 == color_channels(color, 6)


@pytest.mark.parametrize("color", ["hed", "lab"])
def test_fixed_statistics_normalise_tissue(color: str) -> None:
    from ensemble_kit.manifest.phantom.patients import draw_patients
    from ensemble_kit.manifest.phantom.write import draw_pair
    from ensemble_kit.seeding import generator as numpy_generator

    fields = [draw_pair(p, 96, numpy_generator(0, p.name))[0] for p in draw_patients(12)[:6]]
    mean, std = color_statistics(color, [0.0] * 3, [1.0] * 3)
    seen = augment_batch(
        torch.from_numpy(np.stack(fields)), None, generator=generator(), mean=mean, std=std, color=color
    )  # fmt: skip
    assert seen.mean(dim=(0, 2, 3)).abs().max() < 3
    assert 0.2 < seen.std(dim=(0, 2, 3)).min() < seen.std(dim=(0, 2, 3)).max() < 3


def test_unknown_colour_spaces_and_wrong_channels_are_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'hed'"):
        in_color(torch.zeros(1, 3, 2, 2), "hde")
    with pytest.raises(UsageError, match="for 1 channels"):
        augment_batch(
            TILES, None, generator=generator(), mean=[0.0] * 3, std=[1.0] * 3, color="grayscale"
        )
    with pytest.raises(UsageError, match="4 channels"):
        augment_batch(
            torch.zeros(1, 8, 8, 4, dtype=torch.uint8), None,
            generator=generator(), mean=[0.0] * 4, std=[1.0] * 4,
        )  # fmt: skip
