"""Augmentation against slow, obvious second ways of doing the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.images.augment import (
    PRESETS,
    Augmentation,
    _color_maps,
    _hue_rotation,
    _resampled,
    augment_batch,
)
from ensemble_kit.images.presets import preset, read_presets


def tiles(n: int = 4, size: int = 16, channels: int = 3, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8))


def run(
    batch: torch.Tensor, augmentation: Augmentation | None, seed: int = 0, **more: object
) -> torch.Tensor:
    given = {"mean": [0.0] * 3, "std": [1.0] * 3} | more
    return augment_batch(
        batch, augmentation, generator=torch.Generator().manual_seed(seed), **given
    )  # type: ignore[arg-type]


def test_no_augmentation_is_exactly_the_normalisation() -> None:
    batch = tiles()
    out = run(batch, None, mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    wanted = (
        batch.permute(0, 3, 1, 2) / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    ) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)


def test_the_tiles_are_left_as_they_were() -> None:
    batch = tiles()
    before = batch.clone()
    for augmentation in [None, *PRESETS.values()]:
        run(batch, augmentation)
        assert torch.equal(batch, before)


def test_flips_and_quarter_turns_are_exact_and_reach_all_eight_poses() -> None:
    one = tiles(1)
    poses = {
        np.rot90(m, k).tobytes()
        for m in (one[0].numpy(), one[0].numpy()[:, ::-1])
        for k in range(4)
    }
    batch = one.expand(200, -1, -1, -1)
    out = run(batch, Augmentation(flip_horizontal=True, flip_vertical=True, quarter_turns=True))
    seen = {o.astype(np.uint8).tobytes() for o in (out * 255).round().numpy().transpose(0, 2, 3, 1)}
    assert seen == poses


def test_each_sample_draws_its_own() -> None:
    out = run(tiles(1).expand(8, -1, -1, -1), Augmentation(rotation=30, brightness=0.3))
    assert len({o.numpy().tobytes() for o in out}) == 8


def test_the_same_seed_gives_the_same_bits() -> None:
    for augmentation in PRESETS.values():
        assert torch.equal(run(tiles(), augmentation, 3), run(tiles(), augmentation, 3))


def test_the_identity_map_resamples_to_the_same_image_even_when_not_square() -> None:
    images = torch.rand(2, 3, 10, 20)
    maps = torch.eye(2, 3).expand(2, 2, 3)
    torch.testing.assert_close(_resampled(images, maps, "reflect"), images, atol=1e-5, rtol=0)


def test_a_quarter_turn_by_resampling_is_rot90() -> None:
    images = torch.rand(1, 3, 12, 12)
    maps = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    torch.testing.assert_close(
        _resampled(images, maps, "reflect"), torch.rot90(images, 1, (2, 3)), atol=1e-5, rtol=0
    )


def test_a_circle_stays_round_when_a_wide_image_turns() -> None:
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(80) - 39.5, indexing="ij")
    disc = ((x**2 + y**2) < 144).float()[None, None].expand(1, 3, 40, 80).contiguous()
    turn = torch.tensor([[[0.7071, -0.7071, 0.0], [0.7071, 0.7071, 0.0]]])
    assert (_resampled(disc, turn, "border") - disc).abs().mean() < 0.01


def test_shift_moves_by_its_share_of_the_height() -> None:
    image = torch.zeros(1, 3, 10, 10)
    image[0, :, 5, 5] = 1
    moved = _resampled(image, torch.tensor([[[1.0, 0.0, 0.4], [0.0, 1.0, 0.0]]]), "white")
    assert torch.nonzero(moved[0, 0] > 0.99 * moved[0, 0].max()).numel()
    inside = _resampled(image, torch.tensor([[[1.0, 0.0, 0.4], [0.0, 1.0, 0.0]]]), "border")
    assert torch.nonzero(inside[0, 0] > 0.99).tolist() == [[5, 3]]


def test_white_fill_is_white() -> None:
    out = run(tiles(8) * 0, Augmentation(shift=0.5, fill="white"))
    assert out.max() > 0.999
    assert out.min() == 0


def test_colour_maps_equal_the_steps_one_after_the_other() -> None:
    pictures = torch.rand(5, 3, 16, 16) * 255
    settings = Augmentation(brightness=0.3, contrast=0.3, saturation=0.4, hue=0.1)
    matrix, offset = _color_maps(pictures, settings, torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(0)
    luma = torch.tensor([0.299, 0.587, 0.114])
    b, c, s, h = (
        (torch.rand(5, generator=draws) * 2 - 1) * w for w in (0.3, 0.3, 0.4, 0.2 * np.pi)
    )
    for i, picture in enumerate(pictures):
        step = picture * (1 + b[i])
        grey = (1 + b[i]) * (picture[:, ::8, ::8].mean(dim=(1, 2)) @ luma)
        step = (1 + c[i]) * (step - grey) + grey
        own = torch.einsum("chw,c->hw", step, luma)
        step = (1 + s[i]) * step - s[i] * own
        step = torch.einsum("dc,chw->dhw", _hue_rotation(h[i : i + 1])[0], step)
        got = torch.einsum("dc,chw->dhw", matrix[i], picture) + offset[i][:, None, None]
        torch.testing.assert_close(got, step, atol=1e-2, rtol=1e-4)


def test_grey_stays_grey_under_hue_and_saturation() -> None:
    grey = torch.full((3, 8, 8, 3), 128, dtype=torch.uint8)
    out = run(grey, Augmentation(hue=0.5, saturation=1.0))
    torch.testing.assert_close(out, torch.full((3, 3, 8, 8), 128 / 255), atol=1e-5, rtol=0)


def test_nothing_leaves_the_range_of_an_image() -> None:
    for name, augmentation in PRESETS.items():
        out = run(tiles(16), augmentation)
        assert 0 <= out.min() < out.max() <= 1 + 1e-6, name


def test_six_channels_are_two_pictures_in_one_pose_with_colours_of_their_own() -> None:
    one = tiles(1)
    pair = torch.cat([one, one], dim=3)
    posed = run(pair, Augmentation(rotation=45, flip_horizontal=True))
    torch.testing.assert_close(posed[:, :3], posed[:, 3:])
    colored = run(pair, Augmentation(brightness=0.5))
    assert not torch.allclose(colored[:, :3], colored[:, 3:])


def test_a_size_is_resized_with_antialiasing() -> None:
    stripes = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    assert run(stripes, None, size=16)[:, :, :, 2:-2].std() < 0.02
    assert run(stripes, None, size=16).shape == (1, 3, 16, 16)


def test_a_mean_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="got 2 for 3 channels"):
        run(tiles(), None, mean=[0.5, 0.5])


def test_an_unknown_key_or_name_says_what_was_meant(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "p.toml").write_text("[mine]\nrotatoin = 3\n")
    with pytest.raises(DataError, match="Did you mean 'rotation'"):
        read_presets(tmp_path / "p.toml")
    with pytest.raises(UsageError, match="Did you mean 'light'"):
        preset("ligth")
