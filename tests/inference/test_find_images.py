"""Names of images that are accepted, and names that are refused before prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.find_images import FoundImages, find_sources


def names(found: FoundImages) -> list[str]:
    return [source.name for source in found.sources]


def test_files_folders_and_globs_are_found_once_in_the_given_order(slides: Path) -> None:
    file, folder = slides / "malignant" / "P10_0.png", slides / "benign"
    found = find_sources([str(file), str(folder), str(slides / "benign" / "P0[01]_*.png")])
    assert names(found)[0] == str(file)
    assert len(found.sources) == 41
    assert names(find_sources([str(slides / "**" / "P1?_1.png")]))[0].endswith("P10_1.png")
    assert not found.is_single
    assert find_sources([str(file)]).is_single
    assert not find_sources([str(file), str(slides / "benign" / "P00_0.png")]).is_single
    assert len(found.notes) == 1


def test_a_table_gives_paths_and_patients(slides: Path, tmp_path: Path) -> None:
    table = slides.parent / "new.csv"
    absolute = slides / "benign" / "P00_1.png"
    table.write_text(
        f"file;Patient;pair_path\nslides/benign/P00_0.png;a;slides/benign/P00_2.png\n{absolute};b;\n"
        "slides/nowhere.png;c;\n../out.png;c;\n/etc/passwd;c;\n"
    )
    found = find_sources([str(table)], group_column="Patient").sources
    assert [one.group for one in found] == ["a", "b", "c", "c", "c"]
    assert (found[0].pair_path, found[1].path) == ("slides/benign/P00_2.png", "slides/benign/P00_1.png")  # fmt: skip
    assert found[0].read(found[0].path).shape == found[0].read(found[0].pair_path).shape
    for one in found[2:]:
        with pytest.raises(DataError):
            one.read(one.path)


def test_a_medmnist_file_gives_one_source_per_image(ensemble: Ensemble, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", test_images=pixels[:3], test_labels=[0, 0, 1], images=pixels[3:])
    found = find_sources([str(tmp_path / "x.npz")])
    assert [name.rpartition("#")[2] for name in names(found)] == ["test_images/0", "test_images/1", "test_images/2", "images/0", "images/1"]  # fmt: skip
    (block,) = ensemble.predict_blocks(found.sources)
    np.testing.assert_array_equal(block.predictions.proba, ensemble.predict_proba(pixels))
    assert not found.is_single


def test_pairs_are_laid_out_as_in_training(slides: Path) -> None:
    from ensemble_kit.images.tiles.layout import TileSpec, recipes, render
    from ensemble_kit.inference.sources import as_sources
    from ensemble_kit.inference.tile_blocks import tile_block
    from ensemble_kit.manifest.table import Manifest

    he, ihc = "benign/P00_0.png", "malignant/P10_0.png"
    manifest = Manifest.from_records(
        [("1", he, "a", "p"), ("2", ihc, "b", "q")], root=slides
    ).with_columns(pair_path=[ihc, he], join="channels", color="grayscale", stain_norm="reinhard")
    specs = [TileSpec(16), TileSpec(8, "ihc", "none")]
    block = tile_block(manifest, as_sources([(slides / he, slides / ihc)]), specs)
    for spec in specs:
        (first, _) = recipes(manifest, stain=spec.stain, stain_norm=spec.stain_norm)
        (tile,) = render(slides, [(first, spec.image_size)])
        np.testing.assert_array_equal(block.tiles[spec].pixels[0], tile)
    with pytest.raises(DataError):
        tile_block(manifest, as_sources([slides / he]), specs)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("slide.svs", b"x"),
        ("empty.csv", b""),
        ("odd.csv", b"a,b\n1,2\n"),
        ("cut.npz", b"PK\x03\x04 and no more"),
    ],
)
def test_files_without_images_are_refused_by_name(
    tmp_path: Path, file: str, content: bytes
) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=file):
        find_sources([str(tmp_path / file)])


def test_missing_files_and_missing_patients_are_refused(tmp_path: Path, slides: Path) -> None:
    for name in ("nowhere.png", "nothing/*.png", ""):
        with pytest.raises(DataError):
            find_sources([str(tmp_path / name)])
    with pytest.raises(UsageError):
        find_sources([str(slides)], group_column="a", group_pattern="(P)")
    with pytest.raises(DataError, match="P00_0"):
        find_sources([str(slides)], group_column="patient")
    with pytest.raises(DataError, match="P10_0"):
        find_sources([str(slides)], group_pattern=r"benign.*(P\d)")
