"""Contact sheets of the inputs of members."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ensemble_kit.images.stain_normalization import normalise
from ensemble_kit.images.tiles.contact_sheet import GAP, TEXT_HEIGHT, input_sheet
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.manifest.layouts.bci import read_bci
from ensemble_kit.manifest.phantom.write import write_phantom


def phantom(folder: Path) -> Path:
    return write_phantom(folder / "p", n_patients=12, images_per_patient=1, image_size=32)


def cell(sheet: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    top = GAP + row * (side + GAP + TEXT_HEIGHT) + TEXT_HEIGHT
    left = GAP + column * (side + GAP)
    return sheet[top : top + side, left : left + side]


def test_each_row_of_a_sheet_shows_the_input_of_one_member(tmp_path: Path) -> None:
    manifest = read_bci(phantom(tmp_path), stain="he")
    inputs = {
        "rgb": (TileSpec(32), "rgb"), "norm": (TileSpec(32, stain_norm="reinhard"), "rgb"),
        "grey": (TileSpec(32), "grayscale"), "coarse": (TileSpec(8), "rgb"), "hed": (TileSpec(32), "hed"),
    }  # fmt: skip
    sheet = input_sheet(manifest, inputs, n_columns=3, tile=32)
    for column in range(3):
        plain, norm, grey, coarse, hed = (cell(sheet, row, column, 32) for row in range(5))
        np.testing.assert_array_equal(norm, normalise(plain, "reinhard"))
        luma = plain @ np.array([0.299, 0.587, 0.114])
        # Grey is shown from three spreads (of a sixth) below its mean of one half to three above.
        np.testing.assert_allclose(grey, np.repeat(luma[..., None], 3, axis=2), atol=1)
        assert (coarse[::4, ::4].repeat(4, axis=0).repeat(4, axis=1) == coarse).all()
        # Eosin is shown green: more of it where the tissue takes more green than red light.
        eosin = plain[..., 0].astype(int) - plain[..., 1]
        assert np.corrcoef(eosin.ravel(), hed[..., 1].ravel())[0, 1] > 0.5


def test_the_command_draws_the_inputs_of_members(
    cli: Callable[..., tuple[int, str]], tmp_path: Path, slides: Path
) -> None:
    root = phantom(tmp_path)
    code, printed = cli(
        "data", "show", root, "out.png", "--stain", "both", "--join", "channels", "--tile", 32, "--columns", 2,
        "--members", "tiny_cnn,tiny_cnn:stain=ihc:color=lab,tiny_cnn:stain=he:size=16:stain_norm=macenko",
    )  # fmt: skip
    assert code == 0, printed
    sheet = np.asarray(Image.open(tmp_path / "out.png"))
    assert sheet.shape[0] == GAP + 3 * (32 + GAP + TEXT_HEIGHT)
    code, printed = cli("data", "show", slides, "out.png", "--members", "tiny_cnn:stain=he")
    assert code == 3
    assert "stain='he'" in printed
