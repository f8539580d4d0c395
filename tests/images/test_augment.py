"""Augmentation, compared with slow and simple implementations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.images.augmentation import augment as augment_module
from ensemble_kit.images.augmentation.augment import PRESETS, Augmentation, augment_batch
from ensemble_kit.images.augmentation.color_jitter import color_maps, draw_colors, hue_rotation
from ensemble_kit.images.augmentation.geometry import flip_maps, flipped, resampled
from ensemble_kit.images.augmentation.presets import preset
from ensemble_kit.images.augmentation.rand_augment import (
    COLOR,
    apply_operation,
    apply_policy,
    draw_policy,
)
from ensemble_kit.images.augmentation.stain_jitter import STAIN_VECTORS, draw_stains, restained


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


def test_augmentation_does_not_change_its_input() -> None:
    batch = tiles()
    before = batch.clone()
    for augmentation in [None, *PRESETS.values()]:
        run(batch, augmentation)
        assert torch.equal(batch, before)


@pytest.mark.parametrize("name", PRESETS)
def test_augmentation_does_not_read_values_from_the_device(name: str) -> None:
    # Reading a value from the meta device raises an error.
    batch = tiles(20).to("meta")
    for color, n in (("rgb", 3), ("hed", 3), ("grayscale", 1)):
        out = run(batch, PRESETS[name], color=color, mean=[0.4] * n, std=[0.3] * n)
        assert out.shape == (20, n, 16, 16)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 24, 6)], ids=str)
def test_the_block_size_does_not_change_the_results(
    name: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    batch = torch.from_numpy(rng.integers(0, 256, (11, *shape), dtype=np.uint8))
    found = []
    for block in (1, 4, 11):
        monkeypatch.setattr(augment_module, "CPU_BLOCK", block)
        found.append(run(batch, PRESETS[name]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-4, rtol=1e-4)


def test_blocks_get_smaller_if_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, sizes, real = tiles(13), [], augment_module._write
    plain = run(batch, PRESETS["light"])

    def tight(some: torch.Tensor, *more: Any) -> None:
        if len(some) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(some))
        real(some, *more)

    monkeypatch.setattr(augment_module, "_write", tight)
    torch.testing.assert_close(run(batch, PRESETS["light"]), plain)
    assert sizes == [2] * 6 + [1]
    monkeypatch.setattr(augment_module, "_write", lambda *_: tight(batch))
    with pytest.raises(torch.OutOfMemoryError):
        run(batch, PRESETS["light"])


class Launches(TorchDispatchMode):
    """Counts operations on the meta device, which would be launches on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.n += any(isinstance(t, torch.Tensor) and t.is_meta for t in tree_leaves(out))
        return out


@pytest.mark.parametrize("name", PRESETS)
def test_the_number_of_launches_does_not_depend_on_the_batch_size(name: str) -> None:
    counts = []
    for n in (256, 1024):  # enough that every operation of a policy is drawn
        with Launches() as launches:
            run(tiles(1).expand(n, -1, -1, -1).to("meta"), PRESETS[name])
        counts.append(launches.n)
    assert counts[0] == counts[1] > 0


def test_flips_and_quarter_turns_are_exact_and_reach_all_eight_views() -> None:
    one = tiles(1)
    flips = {
        np.rot90(m, k).tobytes()
        for m in (one[0].numpy(), one[0].numpy()[:, ::-1])
        for k in range(4)
    }
    batch = one.expand(200, -1, -1, -1)
    out = run(batch, Augmentation(flip_horizontal=True, flip_vertical=True, quarter_turns=True))
    seen = {o.astype(np.uint8).tobytes() for o in (out * 255).round().numpy().transpose(0, 2, 3, 1)}
    assert seen == flips


@pytest.mark.parametrize("shift", [0.0, 1e-9], ids=["on the bytes", "by resampling"])
def test_quarter_turns_without_flips_do_not_mirror(shift: float) -> None:
    one = tiles(1)
    turns = [np.rot90(one[0].numpy(), k).tobytes() for k in range(4)]
    out = run(one.expand(400, -1, -1, -1), Augmentation(quarter_turns=True, shift=shift))
    pixels = (out * 255).round().numpy().transpose(0, 2, 3, 1)
    seen = [turns.index(p.astype(np.uint8).tobytes()) for p in pixels]
    assert np.bincount(seen).min() > 70


@pytest.mark.parametrize("flip", ["flip_horizontal", "flip_vertical"])
def test_quarter_turns_with_one_flip_reach_all_eight_views(flip: str) -> None:
    out = run(tiles(1).expand(200, -1, -1, -1), Augmentation(**{flip: True}, quarter_turns=True))
    assert len({o.numpy().tobytes() for o in out}) == 8


def test_wide_images_are_flipped_but_not_turned() -> None:
    batch = torch.arange(4 * 8 * 3, dtype=torch.uint8).view(1, 4, 8, 3).expand(50, -1, -1, -1)
    out = run(batch, Augmentation(flip_horizontal=True, quarter_turns=True))
    assert len({o.numpy().tobytes() for o in out}) == 2


def test_flips_by_resampling_equal_exact_flips() -> None:
    images, flips = torch.rand(8, 3, 12, 12), torch.arange(8)
    maps = torch.cat([flip_maps(flips), torch.zeros(8, 2, 1)], dim=2)
    torch.testing.assert_close(
        resampled(images, maps, "reflect"), flipped(images, flips), atol=1e-5, rtol=0
    )


def test_each_sample_has_its_own_random_changes() -> None:
    out = run(tiles(1).expand(8, -1, -1, -1), Augmentation(rotation=30, brightness=0.3))
    assert len({o.numpy().tobytes() for o in out}) == 8


def test_the_same_seed_gives_the_same_bits() -> None:
    for augmentation in PRESETS.values():
        assert torch.equal(run(tiles(), augmentation, 3), run(tiles(), augmentation, 3))


def test_resampling_with_the_identity_gives_the_same_image() -> None:
    images = torch.rand(2, 3, 10, 20)
    maps = torch.eye(2, 3).expand(2, 2, 3)
    torch.testing.assert_close(resampled(images, maps, "reflect"), images, atol=1e-5, rtol=0)


def test_a_quarter_turn_by_resampling_is_rot90() -> None:
    images = torch.rand(1, 3, 12, 12)
    maps = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    torch.testing.assert_close(
        resampled(images, maps, "reflect"), torch.rot90(images, 1, (2, 3)), atol=1e-5, rtol=0
    )


def test_a_circle_stays_round_in_a_rotated_wide_image() -> None:
    y, x = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(80) - 39.5, indexing="ij")
    disc = ((x**2 + y**2) < 144).float()[None, None].expand(1, 3, 40, 80).contiguous()
    turn = torch.tensor([[[0.7071, -0.7071, 0.0], [0.7071, 0.7071, 0.0]]])
    assert (resampled(disc, turn, "border") - disc).abs().mean() < 0.01


def test_a_shift_is_a_share_of_the_height() -> None:
    image = torch.zeros(1, 3, 10, 10)
    image[0, :, 5, 5] = 1
    moved = resampled(image, torch.tensor([[[1.0, 0.0, 0.4], [0.0, 1.0, 0.0]]]), "white")
    assert torch.nonzero(moved[0, 0] > 0.99 * moved[0, 0].max()).numel()
    inside = resampled(image, torch.tensor([[[1.0, 0.0, 0.4], [0.0, 1.0, 0.0]]]), "border")
    assert torch.nonzero(inside[0, 0] > 0.99).tolist() == [[5, 3]]


@pytest.mark.parametrize("width", [32, 64])
def test_a_shift_of_a_wide_image_is_a_share_of_the_height_on_both_axes(width: int) -> None:
    image = torch.zeros(1, 1, 32, width)
    image[0, 0, 16, width // 2] = 1
    for axis in (0, 1):
        maps = torch.eye(2, 3)[None].clone()
        maps[0, axis, 2] = 2 * 0.25  # a quarter of the height, in half heights
        moved = resampled(image, maps, "border")[0, 0].argmax()
        down, across = divmod(int(moved), width)
        assert (16 - down, width // 2 - across) == ((0, 8) if axis == 0 else (8, 0))


def test_white_fill_is_white() -> None:
    out = run(tiles(8) * 0, Augmentation(shift=0.5, fill="white"))
    assert out.max() > 0.999
    assert out.min() == 0


def test_one_colour_matrix_equals_separate_steps() -> None:
    pictures = torch.rand(5, 3, 16, 16) * 255
    settings = Augmentation(brightness=0.3, contrast=0.3, saturation=0.4, hue=0.1)
    drawn = draw_colors(5, settings, torch.Generator().manual_seed(0))
    matrix, offset = color_maps(pictures, *drawn)
    draws = torch.Generator().manual_seed(0)
    luma = torch.tensor([0.299, 0.587, 0.114])
    b, c, s, h = (
        (torch.rand(5, generator=draws) * 2 - 1) * w for w in (0.3, 0.3, 0.4, 0.2 * np.pi)
    )
    for i, picture in enumerate(pictures):
        step = picture * (1 + b[i])
        grey = (1 + b[i]) * (picture.mean(dim=(1, 2)) @ luma)
        step = (1 + c[i]) * (step - grey) + grey
        own = torch.einsum("chw,c->hw", step, luma)
        step = (1 + s[i]) * step - s[i] * own
        step = torch.einsum("dc,chw->dhw", hue_rotation(h[i : i + 1])[0], step)
        got = torch.einsum("dc,chw->dhw", matrix[i], picture) + offset[i][:, None, None]
        torch.testing.assert_close(got, step, atol=1e-2, rtol=1e-4)


def test_grey_stays_grey_under_hue_and_saturation() -> None:
    grey = torch.full((3, 8, 8, 3), 128, dtype=torch.uint8)
    out = run(grey, Augmentation(hue=0.5, saturation=1.0))
    torch.testing.assert_close(out, torch.full((3, 3, 8, 8), 128 / 255), atol=1e-5, rtol=0)


def test_augmented_values_stay_in_the_range_of_an_image() -> None:
    for name, augmentation in PRESETS.items():
        out = run(tiles(16), augmentation)
        assert 0 <= out.min() < out.max() <= 1 + 1e-6, name


def test_two_pictures_of_a_sample_share_geometry_but_not_colours() -> None:
    one = tiles(1)
    pair = torch.cat([one, one], dim=3)
    flipped = run(pair, Augmentation(rotation=45, flip_horizontal=True))
    torch.testing.assert_close(flipped[:, :3], flipped[:, 3:])
    colored = run(pair, Augmentation(brightness=0.5))
    assert not torch.allclose(colored[:, :3], colored[:, 3:])


def test_resizing_in_a_batch_is_antialiased() -> None:
    stripes = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    assert run(stripes, None, size=16)[:, :, :, 2:-2].std() < 0.02
    assert run(stripes, None, size=16).shape == (1, 3, 16, 16)


def test_a_mean_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="for 3 channels"):
        run(tiles(), None, mean=[0.5, 0.5])


def test_an_unknown_key_or_name_gets_the_nearest_name() -> None:
    with pytest.raises(DataError, match="Did you mean 'rotation'"):
        Augmentation(rotatoin=3)
    with pytest.raises(UsageError, match="Did you mean 'light'"):
        preset("ligth")
    mine = Augmentation(rotation=3)
    assert preset("mine", {"mine": mine}) is preset(mine) is mine
    with pytest.raises(UsageError, match="Did you mean 'mine'"):
        preset("mien", {"mine": mine})


# -- stains and policies -------------------------------------------------------------------


def test_stain_jitter_scales_each_stain_in_optical_density() -> None:
    vectors = np.array(STAIN_VECTORS)
    amounts = np.random.default_rng(0).uniform(0, 0.5, (3, 64))
    light = 256 * 10 ** -(vectors.T @ amounts) - 1
    images = torch.tensor(light, dtype=torch.float32).view(1, 3, 8, 8)
    out = restained(images, *draw_stains(1, 0.3, torch.Generator().manual_seed(0)))
    back = np.linalg.inv(vectors.T) @ -np.log10((out.view(3, 64).double().numpy() + 1) / 256)
    for before, after in zip(amounts, back, strict=True):
        slope, haze = np.polyfit(before, after, 1)
        np.testing.assert_allclose(after, slope * before + haze, atol=1e-3)
        assert 0.7 <= slope <= 1.3
        assert abs(haze) <= 0.03


def test_stain_jitter_without_spread_changes_nothing() -> None:
    images = tiles().permute(0, 3, 1, 2).float()
    drawn = draw_stains(len(images), 0.0, torch.Generator().manual_seed(0))
    out = restained(images, *drawn)
    torch.testing.assert_close(out, images, atol=0.02, rtol=0)


def pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy().astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "amount", "tolerance"),
    [
        ("brightness", 0.4, 1),
        ("saturation", -0.5, 1.5),
        ("contrast", 0.5, 1.5),
        ("sharpness", -0.7, 1.5),
    ],
)
def test_colour_operations_equal_those_of_pillow(
    name: str, amount: float, tolerance: float
) -> None:
    smooth = np.random.default_rng(0).integers(60, 150, (6, 6, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(smooth).resize((24, 24), Image.Resampling.BILINEAR))
    batch = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None]
    ours = apply_operation(name, batch, torch.tensor([amount]))[0]
    enhancer = {
        "brightness": ImageEnhance.Brightness,
        "saturation": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "sharpness": ImageEnhance.Sharpness,
    }[name]
    theirs = np.asarray(enhancer(Image.fromarray(image)).enhance(1 + amount)).transpose(2, 0, 1)
    inner = (
        slice(None),
        slice(1, -1),
        slice(1, -1),
    )  # Pillow does not change the outermost pixels.
    assert np.abs(ours.numpy()[inner] - theirs[inner]).max() <= tolerance


def test_posterize_solarize_and_autocontrast_by_hand() -> None:
    ramp = torch.arange(0, 256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16).contiguous()
    assert COLOR["posterize"](ramp, torch.tensor([6.0]))[0, 0].unique().tolist() == [
        0,
        64,
        128,
        192,
    ]
    assert COLOR["solarize"](ramp, torch.tensor([55.0]))[0, 0].max() == 199
    squeezed = 50 + ramp / 4
    torch.testing.assert_close(
        COLOR["autocontrast"](squeezed, torch.zeros(1)), ramp, atol=1e-2, rtol=0
    )


@pytest.mark.parametrize("kind", ["dark", "flat", "on black", "two levels", "small"])
def test_equalize_equals_that_of_pillow(kind: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 90, (40, 48, 3), dtype=np.uint8)
    if kind == "flat":
        image[:] = 100
    elif kind == "on black":
        image[:, :20] = 0
    elif kind == "two levels":
        image = np.where(image > 60, 200, 50).astype(np.uint8)
    elif kind == "small":
        image = image[:8, :8]
    batch = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None]
    ours = COLOR["equalize"](batch, torch.zeros(1))[0].numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(ours, np.asarray(ImageOps.equalize(Image.fromarray(image))))


def test_a_policy_changes_samples_in_different_ways() -> None:
    images = tiles(1).expand(64, -1, -1, -1).permute(0, 3, 1, 2).float()
    for policy in ("trivial", "rand"):
        rounds = draw_policy(64, policy, torch.Generator().manual_seed(0))
        out = apply_policy(images, rounds, fill="reflect")
        assert len({o.numpy().tobytes() for o in out}) > 10
        assert 0 <= out.min() <= out.max() <= 255


def test_the_presets_of_the_reproduced_systems_are_as_published() -> None:
    strong = PRESETS["strong-affine"]
    assert (strong.rotation, strong.shift, strong.zoom, strong.shear, strong.brightness) == (
        40,
        0.2,
        0.2,
        0.2,
        0.2,
    )
    assert strong.flip_horizontal
    assert strong.flip_vertical
    mild = PRESETS["mild-affine"]
    assert (mild.rotation, mild.zoom, mild.shear, mild.flip_vertical) == (20, 0.2, 0.2, False)
    moved = PRESETS["flips-rotation-translation"]
    assert (moved.rotation, moved.shift) == (36, 0.3)
    assert list(PRESETS)[:2] == ["none", "light"]
