"""Batches: epochs depend on the seed and their number only; sampling against class imbalance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.images.augmentation.augment import PRESETS
from ensemble_kit.images.loading.batches import Batches
from ensemble_kit.images.loading.sampling import SAMPLINGS, epoch_length, epoch_order
from ensemble_kit.images.loading.tile_loader import stream
from ensemble_kit.images.tiles.build import Tiles

LABELS = np.repeat([0, 1, 2], [23, 9, 4])


def make(**changes: object) -> Batches:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    tiles = Tiles(pixels, np.array([f"s{i}" for i in range(40)]), "d", 8)
    given = {"batch_size": 5, "device": "cpu", "mean": [0.5] * 3, "std": [0.25] * 3} | changes
    rows = np.random.default_rng(1).permutation(40)[: len(LABELS)]
    return Batches(tiles, rows, LABELS, **given)  # type: ignore[arg-type]


def same(a: list, b: list) -> bool:
    return all(
        torch.equal(x, y)
        for left, right in zip(a, b, strict=True)
        for x, y in zip(left, right, strict=True)
    )


def test_an_epoch_does_not_depend_on_those_before_it() -> None:
    long = make(augmentation=PRESETS["light"])
    for k in range(3):
        history = list(long.epoch(k))
    assert same(history, list(make(augmentation=PRESETS["light"]).epoch(2)))


def test_epochs_and_seeds_differ() -> None:
    base = list(make(augmentation=PRESETS["light"]).epoch(0))
    assert not same(base, list(make(augmentation=PRESETS["light"]).epoch(1)))
    assert not same(base, list(make(augmentation=PRESETS["light"], seed=1).epoch(0)))


def test_batches_do_not_use_the_global_generators() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(make(augmentation=PRESETS["light"]).epoch(0))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_labels_and_pixels_belong_to_the_positions() -> None:
    batches = make()
    for images, labels, sent in batches.epoch(0):
        positions = sent.numpy()
        np.testing.assert_array_equal(labels, LABELS[positions])
        tiles = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)[
            batches.rows[positions]
        ]
        wanted = (tiles / 255 - 0.5) / 0.25
        np.testing.assert_allclose(images.numpy(), wanted.transpose(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_length_is_the_number_of_batches(sampling: str) -> None:
    batches = make(sampling=sampling)
    assert len(batches) == len(batches.steps(0)) == len(list(batches.epoch(0)))


@pytest.mark.parametrize(
    ("batch_size", "sizes"),
    [(5, [5, 5, 5, 5, 4, 4, 4, 4]), (16, [12, 12, 12]), (35, [18, 18]), (36, [36]), (64, [36])],
)
def test_an_epoch_is_divided_evenly_into_batches(batch_size: int, sizes: list[int]) -> None:
    batches = make(batch_size=batch_size)
    steps = batches.steps(3)
    assert [len(step) for step in steps] == sizes
    np.testing.assert_array_equal(np.concatenate(steps), batches.positions(3))
    np.testing.assert_array_equal(
        np.concatenate(steps), np.concatenate([p.numpy() for _, _, p in batches.epoch(3)])
    )


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"), [(5, 2, [2, 2]), (4, 2, [2, 2]), (1, 2, [1]), (3, 1, [1, 1, 1])]
)
def test_a_last_batch_of_one_image_is_left_out(n: int, batch_size: int, sizes: list[int]) -> None:
    tiles = Tiles(np.zeros((n, 8, 8, 3), np.uint8), np.arange(n).astype(str), "", 8)
    batches = Batches(
        tiles, range(n), [0] * n, batch_size=batch_size, device="cpu", mean=[0] * 3, std=[1] * 3,
        drop_single=True,
    )  # fmt: skip
    assert [len(step) for step in batches.steps(0)] == sizes
    assert len(batches) == len(list(batches.epoch(0))) == len(sizes)


def test_unshuffled_batches_follow_the_rows() -> None:
    seen = torch.cat([positions for _, _, positions in make(shuffle=False).epoch(4)])
    assert seen.tolist() == list(range(len(LABELS)))


def order(sampling: str, seed: int = 0) -> np.ndarray:
    return epoch_order(LABELS, sampling, shuffle=True, seed=seed)


def test_without_sampling_every_image_is_seen_once() -> None:
    assert sorted(order("none")) == list(range(len(LABELS)))


def test_oversampling_repeats_classes_up_to_the_largest() -> None:
    visits = np.bincount(order("oversample"), minlength=len(LABELS))
    assert np.bincount(LABELS, visits).tolist() == [23, 23, 23]
    for c in range(3):
        assert np.ptp(visits[np.equal(LABELS, c)]) <= 1


def test_undersampling_reduces_classes_to_the_smallest() -> None:
    drawn = order("undersample")
    assert np.bincount(LABELS[drawn]).tolist() == [4, 4, 4]
    assert len(set(drawn.tolist())) == 12
    assert set(drawn.tolist()) != set(order("undersample", seed=1).tolist())


def test_every_part_of_a_balanced_epoch_is_balanced() -> None:
    drawn = LABELS[order("balanced")]
    assert len(drawn) == len(LABELS) == epoch_length(LABELS, "balanced")
    for start in range(0, len(drawn) - 6, 3):
        assert np.bincount(drawn[start : start + 6], minlength=3).tolist() == [2, 2, 2]


def test_an_unknown_sampling_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="Did you mean 'balanced'"):
        make(sampling="balance")


def test_rows_outside_the_tiles_are_refused() -> None:
    batches = make()
    tiles = Tiles(np.zeros((2, 8, 8, 3), np.uint8), np.array(["a", "b"]), "", 8)
    with pytest.raises(DataError):
        Batches(tiles, [0, 2], [0, 1], batch_size=1, device="cpu", mean=[0] * 3, std=[1] * 3)
    assert len(batches)


def test_streaming_gives_the_same_tiles_as_gathering() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    tiles = Tiles(pixels, np.arange(40).astype(str), "d", 8)
    steps = [np.array([3, 1]), np.array([7]), np.array([39, 0, 5])]
    for rows, batch in zip(steps, stream(tiles, steps, torch.device("cpu")), strict=True):
        np.testing.assert_array_equal(batch.numpy(), pixels[rows])


def test_an_error_in_the_streaming_thread_is_raised() -> None:
    tiles = Tiles(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4).astype(str), "d", 8)
    with pytest.raises(IndexError):
        list(stream(tiles, [np.array([9])], torch.device("cpu")))


def test_a_stream_that_is_closed_early_ends_its_thread() -> None:
    import threading

    before = threading.active_count()
    tiles = Tiles(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4).astype(str), "d", 8)
    feed = stream(tiles, [np.array([0])] * 50, torch.device("cpu"))
    next(feed)
    feed.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
