"""The matrix: names and settings of variants, and errors."""

from __future__ import annotations

import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.reproduce.matrix import refuse_equal, variants

MATRIX = {
    "stain": {"he": {}, "ihc": {"data": {"stain": "ihc"}}},
    "color": {"rgb": {}, "grey": {"data": {"color": "grayscale"}}},
    "rate": {"fast": {}, "slow": {"recipe": {"learning_rate": 1e-4}}},
}
BASE = {"recipe": {"epochs": 3}}


def test_axes_vary_alone_unless_they_are_crossed() -> None:
    assert [v.name for v in variants(MATRIX, [], BASE)] == ["he", "ihc", "grey", "slow"]
    crossed = [v.name for v in variants(MATRIX, [["stain", "color"]], BASE)]
    assert crossed == ["he", "grey", "ihc", "ihc-grey", "slow"]


def test_a_variant_has_the_settings_of_its_options_and_of_the_base() -> None:
    by_name = {v.name: v for v in variants(MATRIX, [["stain", "color"]], BASE)}
    assert by_name["ihc-grey"].settings == {
        "recipe": {"epochs": 3},
        "data": {"stain": "ihc", "color": "grayscale"},
    }
    assert by_name["slow"].settings == {"recipe": {"epochs": 3, "learning_rate": 1e-4}}
    assert by_name["slow"].options == {"stain": "he", "color": "rgb", "rate": "slow"}


@pytest.mark.parametrize(
    ("crossed", "named"), [([["stian"]], "stian"), ([["stain"], ["stain", "rate"]], "stain")]
)
def test_unknown_and_repeated_axes_are_refused(crossed: list[list[str]], named: str) -> None:
    with pytest.raises(DataError, match=named):
        variants(MATRIX, crossed, BASE)


def test_variants_with_equal_settings_are_refused() -> None:
    with pytest.raises(DataError, match="'he' and 'same'"):
        refuse_equal(variants({"stain": {"he": {}, "same": {}}}, [], BASE))
