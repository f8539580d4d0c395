"""Measures of maps: deletion and insertion, masks, shuffled weights, regions, stains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.uncertainty.group_means import mean_differences, mean_interval
from ensemble_kit.explanation.explain import explain_blocks
from ensemble_kit.explanation.faithfulness import (
    CENTRE,
    RANDOM,
    SHARES,
    area,
    curves,
    with_baselines,
)
from ensemble_kit.explanation.masks import Masks, OnMask, on_mask
from ensemble_kit.explanation.randomised import (
    rank_correlation,
    shuffled_correlations,
    with_shuffled_weights,
)
from ensemble_kit.explanation.region_files import regions_of
from ensemble_kit.explanation.regions import hot_regions
from ensemble_kit.explanation.stain_curve import AMOUNTS, stain_curve, with_stain
from ensemble_kit.explanation.stain_files import flip_sentence
from ensemble_kit.explanation.summary import summary_of
from ensemble_kit.images.augmentation.stain_jitter import STAIN_VECTORS
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.sources import as_sources

SPEC = TileSpec(8)


class DarkCorner:
    """An ensemble that depends only on the darkness of the upper left 4 x 4 pixels."""

    class _Stored:
        @staticmethod
        def combine(logits: np.ndarray) -> Any:
            from ensemble_kit.arrays import softmax
            from ensemble_kit.predictions.method_predictions import decided

            return decided(softmax(logits)[:, 0])

    stored = _Stored()

    def member_logits(self, tiles: Any) -> np.ndarray:
        dark = 1 - tiles[SPEC].pixels[:, :4, :4].mean(axis=(1, 2, 3)) / 255
        proba = 0.1 + 0.8 * dark
        return np.log(np.stack([1 - proba, proba], axis=1))[:, None]


def test_a_right_map_has_a_smaller_deletion_and_a_larger_insertion_area() -> None:
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    right, wrong = np.zeros((8, 8)), np.ones((8, 8))
    right[:4, :4], wrong[:4, :4] = 1, 0
    tiles = {SPEC: Tiles(pixels, np.array(["0"]), "", 8)}
    found = curves(DarkCorner(), tiles, {"right": right, "wrong": wrong}, 1)  # type: ignore[arg-type]
    covered = np.array([round(s * 64) for s in SHARES])
    first = np.clip(covered, 0, 16) / 16
    last = np.clip(covered - 48, 0, 16) / 16
    deleted = np.ceil(SHARES * 64)  # pixels with a rank below the share
    assert found["right"].deletion[[0, -1]] == pytest.approx([0.9, 0.1])
    assert found["right"].deletion[3] == found["wrong"].insertion[7] == pytest.approx(0.1)
    assert found["right"].insertion[3] == pytest.approx(0.9)
    np.testing.assert_allclose(
        found["right"].deletion, 0.9 - 0.8 * np.clip(deleted, 0, 16) / 16, atol=0.06
    )
    np.testing.assert_allclose(found["wrong"].deletion, 0.9 - 0.8 * last, atol=0.06)
    np.testing.assert_allclose(found["right"].insertion, 0.1 + 0.8 * first, atol=0.06)
    assert area(found["right"].deletion) < area(found["wrong"].deletion)
    assert area(found["right"].insertion) > area(found["wrong"].insertion)


def test_equal_cells_are_deleted_in_random_order() -> None:
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    tiles = {SPEC: Tiles(pixels, np.array(["0"]), "", 8)}
    flat = curves(DarkCorner(), tiles, {"flat": np.zeros((8, 8))}, 1)["flat"]  # type: ignore[arg-type]
    assert flat.deletion[3] > 0.5
    again = curves(DarkCorner(), tiles, {"flat": np.zeros((8, 8))}, 1)["flat"]  # type: ignore[arg-type]
    np.testing.assert_array_equal(flat.deletion, again.deletion)


def test_baselines_are_a_spot_in_the_centre_and_a_random_map_per_image() -> None:
    one, same, other = (with_baselines({"m": np.ones((9, 9))}, name) for name in ("a", "a", "b"))
    assert np.unravel_index(one[CENTRE].argmax(), (9, 9)) == (4, 4)
    np.testing.assert_array_equal(one[RANDOM], same[RANDOM])
    assert not np.array_equal(one[RANDOM], other[RANDOM])


def test_the_first_and_last_points_of_the_curves_are_predictions(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    (block,) = explain_blocks(ensemble, as_sources(test_paths[:1]))
    found = block.by_method["gradcam"]
    c = int(found.explained[0])
    one = curves(ensemble, block.tiles, {"m": found.maps[0, 0]}, c)["m"]
    white = ensemble.predict_proba(np.full((16, 16, 3), 255, np.uint8))[0, c]
    assert one.deletion[[0, -1]] == pytest.approx([found.predictions.proba[0, c], white], abs=1e-5)
    assert one.insertion[[0, -1]] == pytest.approx([white, found.predictions.proba[0, c]], abs=1e-5)


def test_an_empty_map_has_no_hit_and_the_share_of_a_uniform_map() -> None:
    inside = np.array([[1.0, 0.0, 0.0, 0.0]])
    assert on_mask(np.zeros((1, 4)), inside) == OnMask(False, 0.25, 0.25)
    assert on_mask(np.ones((1, 4)), inside) == OnMask(False, 0.25, 0.25)
    assert on_mask(np.array([[3.0, 1.0, 0.0, 0.0]]), inside) == OnMask(True, 0.75, 0.25)


def test_masks_are_found_by_name_and_resampled_to_the_grid(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :4] = 255
    Image.fromarray(mask).save(tmp_path / "test" / "a.png")
    Image.fromarray(0 * mask).save(tmp_path / "test" / "black.png")
    masks = Masks(tmp_path)
    inside = masks.of("IHC/test/a.png", (2, 2))
    assert inside is not None
    assert inside.tolist() == [[1, 0], [0, 0]]
    assert masks.of("black.png", (2, 2)) is None
    assert masks.of("other.png", (2, 2)) is None
    (tmp_path / "train").mkdir()
    Image.fromarray(mask).save(tmp_path / "train" / "a.png")
    with pytest.raises(DataError, match=r"\ba\b") as caught:
        Masks(tmp_path)
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="nowhere"):
        Masks(tmp_path / "nowhere")


def test_rank_correlation_of_monotone_and_constant_maps() -> None:
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert np.isnan(rank_correlation(a, np.ones((2, 2))))


def test_maps_correlate_with_the_same_weights_and_not_with_shuffled_weights(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    (block,) = explain_blocks(ensemble, as_sources(test_paths[:4]))
    found = block.by_method["gradcam"]
    same = shuffled_correlations(ensemble.members, found, block.tiles)
    np.testing.assert_allclose(same, 1.0)
    assert same.shape == (4, 3)
    before = [one.clone() for one in ensemble.members[0].by_fold[0].model.parameters()]
    shuffled = [with_shuffled_weights(one) for one in ensemble.members]
    other = shuffled_correlations(shuffled, found, block.tiles)
    assert np.nanmean(other) < 0.9
    after = ensemble.members[0].by_fold[0].model.parameters()
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_regions_are_closed_rings_in_pixels_with_holes() -> None:
    ring = np.zeros((8, 8))
    ring[1:6, 1:6] = 1
    ring[3, 3] = 0
    (polygon,) = hot_regions(ring, 80, 160, x=1000)
    assert len(polygon) == 2
    outer, hole = (np.array(one) for one in polygon)
    assert (outer[0] == outer[-1]).all()
    np.testing.assert_allclose(outer.min(axis=0), [1010, 20])
    np.testing.assert_allclose(outer.max(axis=0), [1060, 120])
    assert 1030 <= hole[:, 0].min() < hole[:, 0].max() <= 1040
    whole = np.array(hot_regions(np.ones((4, 4)), 40, 40)[0][0])
    assert (whole.min(), whole.max()) == (0, 40)
    assert hot_regions(np.zeros((4, 4)), 40, 40) == []


def test_a_speckled_map_gives_one_region(ensemble: Ensemble, test_paths: list[Path]) -> None:
    (source,) = as_sources(test_paths[:1])
    height, width = source.read(source.path).shape[:2]
    speckled = np.zeros((1, 128, 128))
    speckled[0, 32:64, 64:96] = np.random.default_rng(0).random((32, 32)) > 0.5
    found = dataclasses.replace(ensemble.explain(test_paths[:1]), ensemble=speckled)
    (feature,) = regions_of(source, found, 0)["features"]
    ring = np.array(feature["geometry"]["coordinates"][0])
    want = np.array([[width / 2, height / 4], [width * 3 / 4, height / 2]])
    np.testing.assert_allclose([ring.min(axis=0), ring.max(axis=0)], want, atol=width / 24)


@pytest.mark.parametrize(("stain", "row"), [("haematoxylin", 0), ("eosin", 1), ("dab", 2)])
def test_only_the_optical_density_of_the_chosen_stain_is_scaled(stain: str, row: int) -> None:
    amounts = np.full(3, 0.25)
    image = (256 * 10 ** -(amounts @ np.array(STAIN_VECTORS)) - 1).round().astype(np.uint8)
    picture = np.tile(image, (4, 4, 1))
    changed = with_stain(picture, stain, 2.0)
    amounts[row] *= 2
    want = 256 * 10 ** -(amounts @ np.array(STAIN_VECTORS)) - 1
    assert np.abs(changed[0, 0] - want).max() < 2
    assert with_stain(picture, stain, 1.0) is picture
    with pytest.raises(UsageError, match="dap") as caught:
        with_stain(picture, "dap", 2.0)
    assert caught.value.exit_code == 2


def test_a_stain_curve_has_the_prediction_of_each_changed_image(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    (source,) = as_sources([test_paths[0]])
    found = stain_curve(ensemble, source, "haematoxylin")
    pixels = np.asarray(Image.open(test_paths[0]).convert("RGB"))
    for k in (0, 8, 16):
        changed = with_stain(pixels, "haematoxylin", float(AMOUNTS[k]))
        np.testing.assert_allclose(found.proba[k], ensemble.predict_proba(changed)[0], atol=1e-6)
    turns = [k for k in range(16) if found.predicted[k] != found.predicted[k + 1]]
    assert len(found.flips) == len(turns)
    for k, flip in zip(turns, found.flips, strict=True):
        assert AMOUNTS[k] <= flip.amount <= AMOUNTS[k + 1]
        assert (flip.before, flip.after) == (found.predicted[k], found.predicted[k + 1])
    now = found.predicted[8]
    assert now in flip_sentence(found)


def test_the_interval_of_a_mean_is_over_patients() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(8), 10)
    values = np.clip(0.5 + rng.normal(0, 0.2, 8)[patients] + rng.normal(0, 0.01, 80), 0, 1)
    labels = np.zeros(80, dtype=int)
    over_patients = mean_interval(values, patients, labels)
    over_images = mean_interval(values, np.arange(80), labels)
    assert over_patients.value == over_images.value == pytest.approx(values.mean())
    assert over_patients.high - over_patients.low > 2 * (over_images.high - over_images.low)  # type: ignore[operator]
    gain = mean_differences(values + 0.1, {"it": values}, patients, labels)["it"].effect
    assert gain.value == pytest.approx(0.1)


def record(number: int, areas: dict[str, float]) -> dict[str, Any]:
    flat = {
        name: {"deletion": [v] * len(SHARES), "insertion": [v] * len(SHARES)}
        for name, v in areas.items()
    }
    own = {"class": "b", "curves": flat, "shuffled": {"m": 0.2, "ensemble": None}}
    return {"number": number, "group": f"P{number // 2}", "truth": "b", "maps": {"gradcam": own}}


def test_the_summary_has_verdicts_in_the_direction_of_each_measure() -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 20)
    records = [
        record(i, {"m": 0.4 + e, "n": 0.6, "ensemble": 0.2, "random map": 0.5, "centre": 0.5})
        for i, e in enumerate(noise)
    ]
    found = summary_of(records, "gradcam", ("a", "b"))
    deletion, insertion = found["deletion"], found["insertion"]
    assert (deletion["best_member"], deletion["verdict"]["m"]) == ("m", "better")
    assert (insertion["best_member"], insertion["verdict"]["n"]) == ("n", "worse")
    assert (deletion["n_images"], deletion["n_groups"]) == (20, 10)
    assert deletion["maps"]["ensemble"]["value"] == pytest.approx(0.2)
    assert "0.200" in deletion["sentence"]
    assert deletion["sentence"] != insertion["sentence"]
    assert found["shuffled"]["m"]["value"] == pytest.approx(0.2)
    assert found["shuffled"]["ensemble"]["n_images"] == 0
    assert "pointing" not in found
