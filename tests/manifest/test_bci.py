"""Stains, their joins, and groups that are known, given or unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.images.decode import read_image
from ensemble_kit.images.resize import resize
from ensemble_kit.images.tiles.build import build_tiles
from ensemble_kit.manifest.layouts.bci import read_bci
from ensemble_kit.manifest.layouts.detect import read_manifest
from ensemble_kit.manifest.phantom.write import write_phantom


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_phantom(tmp_path / "BCI", n_patients=12, images_per_patient=1, image_size=32)


def halves(root: Path, row: int = 0) -> tuple[np.ndarray, np.ndarray]:
    table = read_bci(root, stain="both").table
    return read_image(root, table["path"][row]), read_image(root, table["pair_path"][row])


def test_one_stain_is_read_from_its_folder_with_ordinal_scores(root: Path) -> None:
    for stain, folder in (("ihc", "IHC"), ("he", "HE")):
        manifest = read_bci(root, stain=stain)
        assert manifest.table["path"].str.startswith(f"{folder}/").all()
        assert manifest.class_names == ("0", "1+", "2+", "3+")
        assert manifest.ordinal


@pytest.mark.parametrize(("join", "width"), [("side", 16), ("stack", 8)])
def test_side_and_stack_put_h_and_e_on_the_left(
    root: Path, tmp_path: Path, join: str, width: int
) -> None:
    tiles = build_tiles(read_bci(root, stain="both", join=join), 16, cache_dir=tmp_path / "c")
    assert tiles.pixels.shape[1:] == (16, 2 * width, 3)
    he, ihc = halves(root)
    np.testing.assert_array_equal(tiles.pixels[0][:, :width], resize(he, 16, width))
    np.testing.assert_array_equal(tiles.pixels[0][:, width:], resize(ihc, 16, width))


def test_channels_have_both_stains_at_full_size(root: Path, tmp_path: Path) -> None:
    tiles = build_tiles(read_bci(root, stain="both", join="channels"), 16, cache_dir=tmp_path / "c")
    assert tiles.pixels.shape[1:] == (16, 16, 6)
    he, ihc = halves(root)
    np.testing.assert_array_equal(
        tiles.pixels[0], np.dstack([resize(he, 16, 16), resize(ihc, 16, 16)])
    )


def test_grayscale_is_three_equal_channels_of_luma(root: Path, tmp_path: Path) -> None:
    pixels = build_tiles(read_bci(root, color="grayscale"), 32, cache_dir=tmp_path / "c").pixels
    assert (pixels == pixels[..., :1]).all()
    row = read_image(root, read_bci(root).table["path"][0])
    luma = np.rint(row @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(pixels[0, :, :, 0] - luma).max() <= 1


@pytest.mark.parametrize("stain", ["ihc", "he"])
def test_a_join_of_one_stain_is_refused_and_the_default_of_both_is_stack(
    root: Path, stain: str
) -> None:
    with pytest.raises(UsageError, match=f"'stack'.*'{stain}'"):
        read_bci(root, stain=stain, join="stack")
    assert read_bci(root, stain=stain).table["join"].unique() == ["none"]
    both = read_bci(root, stain="both")
    assert both.digest == read_bci(root, stain="both", join="stack").digest


def test_every_join_has_its_own_digest(root: Path, tmp_path: Path) -> None:
    manifests = [read_bci(root, stain="both", join=join) for join in ("side", "stack", "channels")]
    manifests.append(read_bci(root, stain="both", color="grayscale"))
    assert len({m.digest for m in manifests}) == 4
    assert len({build_tiles(m, 16, cache_dir=tmp_path / "c").digest for m in manifests}) == 4


def test_without_patients_each_image_is_its_own_group_with_a_caveat(root: Path) -> None:
    (root / "phantom.json").unlink()
    manifest = read_bci(root)
    assert not manifest.has_groups
    assert "BCI" in manifest.notes[-1]
    given = read_bci(root, groups=root / "patients.csv")
    assert given.group_kind == "patient"
    assert given.n_groups == 12


def test_a_group_table_without_the_images_is_refused_with_their_number(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "g.csv").write_text("file,patient\n00001_train_9.png,A\n")
    with pytest.raises(DataError, match="12 of 12"):
        read_bci(root, groups=tmp_path / "g.csv")


@pytest.mark.parametrize("begin", ["\ufeffFile;Patient", "sep=;\nfile; patient ;"])
def test_a_group_table_of_a_spreadsheet_is_read(root: Path, tmp_path: Path, begin: str) -> None:
    rows = (root / "patients.csv").read_text().splitlines()[1:]
    text = "\r\n".join([begin, *(row.replace(",", "; ") + ";" for row in rows), ";;"])
    (tmp_path / "g.csv").write_text(text)
    given = read_bci(root, groups=tmp_path / "g.csv")
    assert given.groups.tolist() == read_bci(root).groups.tolist()


def test_a_group_table_with_two_patients_for_an_image_or_none_is_refused(
    root: Path, tmp_path: Path
) -> None:
    text = (root / "patients.csv").read_text()
    file, patient = text.splitlines()[1].split(",")
    (tmp_path / "g.csv").write_text(f"{text}{file},another\n")
    with pytest.raises(DataError, match=Path(file).stem):
        read_bci(root, groups=tmp_path / "g.csv")
    (tmp_path / "g.csv").write_text(text.replace(f"{file},{patient}", f"{file},N/A"))
    with pytest.raises(DataError, match="N/A"):
        read_bci(root, groups=tmp_path / "g.csv")


def test_a_missing_partner_is_named(root: Path) -> None:
    gone = next((root / "IHC" / "train").iterdir())
    gone.unlink()
    with pytest.raises(DataError, match="1 of 12"):
        read_bci(root, stain="both")


def test_a_file_without_a_bci_name_is_reported(root: Path) -> None:
    next((root / "IHC" / "train").iterdir()).rename(root / "IHC/train/scan.png")
    with pytest.raises(DataError, match=r"first: IHC/train/scan\.png"):
        read_bci(root)


def test_the_layout_is_recognised_with_its_options(root: Path) -> None:
    assert read_manifest(root.parent, stain="he").table["stain"][0] == "HE"
    with pytest.raises(UsageError, match="Did you mean 'ihc'"):
        read_manifest(root, stain="ihx")
