"""Tiles: decoded once, written atomically, and keyed by the digests of their images."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.errors import DataError, EnvironmentFault, UsageError
from ensemble_kit.images.decode import read_image
from ensemble_kit.images.digests import with_digests
from ensemble_kit.images.resize import resize
from ensemble_kit.images.stain_normalization import normalise
from ensemble_kit.images.tiles import build as tiles_module
from ensemble_kit.images.tiles import layout as join_module
from ensemble_kit.images.tiles.build import build_tile_sets, build_tiles
from ensemble_kit.images.tiles.cache import prune_cache
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.manifest.layouts.bci import read_bci
from ensemble_kit.manifest.layouts.class_folders import read_folders
from ensemble_kit.manifest.layouts.digits import read_digits
from ensemble_kit.manifest.phantom.write import write_phantom
from ensemble_kit.manifest.table import Manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    rng = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "data" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return read_folders(tmp_path / "data")


def test_each_row_is_the_resized_decoded_file(manifest: Manifest, tmp_path: Path) -> None:
    tiles = build_tiles(manifest, 16, cache_dir=tmp_path / "c")
    assert tiles.pixels.shape == (6, 16, 16, 3)
    assert tiles.sample_ids.tolist() == manifest.sample_ids.tolist()
    for row, path in zip(tiles.pixels, manifest.table["path"], strict=True):
        np.testing.assert_array_equal(row, resize(read_image(manifest.root, path), 16, 16))


def test_resizing_is_antialiased() -> None:
    # Stripes finer than a target pixel must become grey, not other stripes.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert resize(stripes, 16, 16)[:, 2:-2].std() < 3


def test_center_crops_and_pad_shows_everything() -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, :10], wide[:, 30:] = 200, 200
    assert resize(wide, 20, 20, crop="center").max() == 0
    padded = resize(wide, 20, 20, crop="pad")
    assert padded[0].min() == 255
    assert padded[10].min() == 0


def test_a_second_build_decodes_nothing(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_tiles(manifest, 16, cache_dir=tmp_path / "c")
    monkeypatch.setattr(tiles_module, "render", lambda *a, **k: pytest.fail("decoded again"))
    again = build_tiles(manifest, 16, cache_dir=tmp_path / "c")
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.pixels, first.pixels)


def test_row_13_a_changed_file_gets_a_new_tile(manifest: Manifest, tmp_path: Path) -> None:
    before = build_tiles(manifest, 16, cache_dir=tmp_path / "c")
    Image.new("RGB", (30, 20), "red").save(manifest.root / manifest.table["path"][2])
    after = build_tiles(manifest, 16, cache_dir=tmp_path / "c")
    assert after.digest != before.digest
    assert after.pixels[2, 8, 8].tolist() == [255, 0, 0]
    assert with_digests(manifest).digest != manifest.digest


def test_a_damaged_cache_is_built_again(manifest: Manifest, tmp_path: Path) -> None:
    good = np.array(build_tiles(manifest, 16, cache_dir=tmp_path / "c").pixels)
    (file,) = (tmp_path / "c").glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(build_tiles(manifest, 16, cache_dir=tmp_path / "c").pixels, good)


def test_several_sizes_from_one_decoding_equal_separate_builds(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {size: build_tiles(manifest, size, cache_dir=tmp_path / "alone") for size in (8, 16)}
    calls = []
    real = tiles_module.render
    monkeypatch.setattr(tiles_module, "render", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    together = build_tile_sets(
        manifest, [TileSpec(8), TileSpec(16)], cache_dir=tmp_path / "together"
    )
    assert len(calls) == len(manifest)
    for size, tiles in alone.items():
        np.testing.assert_array_equal(together[TileSpec(size)].pixels, tiles.pixels)
        assert together[TileSpec(size)].digest == tiles.digest


def test_all_unreadable_images_are_named_at_once(manifest: Manifest, tmp_path: Path) -> None:
    bad = manifest.table["path"][[1, 4]].tolist()
    for path in bad:
        (manifest.root / path).write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match="2 of 6") as caught:
        build_tiles(manifest, 16, cache_dir=tmp_path / "c")
    assert all(path in str(caught.value) for path in bad)
    assert not list((tmp_path / "c").glob("*.npy"))
    assert not list((tmp_path / "c").glob(".*part"))


def test_an_image_is_decoded_again_alone_if_memory_runs_out(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = np.array(build_tiles(manifest, 16, cache_dir=tmp_path / "c").pixels)
    large, real, tries = manifest.table["path"][2], join_module.read_image, list[str]()

    def read(root: Path, path: str) -> np.ndarray:
        tries.append(path)
        if path == large and tries.count(path) <= fails:
            raise MemoryError("Unable to allocate 181. MiB")
        return real(root, path)

    monkeypatch.setattr(join_module, "read_image", read)
    fails = 1
    got = build_tiles(manifest, 16, cache_dir=tmp_path / "d").pixels
    np.testing.assert_array_equal(got, want)
    tries.clear()
    fails = 2
    with pytest.raises(EnvironmentFault) as caught:
        build_tiles(manifest, 16, cache_dir=tmp_path / "e")
    assert f"'{large}'" in caught.value.problem
    assert caught.value.exit_code == 4


def test_processes_that_build_at_the_same_time_get_the_same_tiles(
    manifest: Manifest, tmp_path: Path
) -> None:
    code = (
        "import sys, hashlib\n"
        "from ensemble_kit.manifest.layouts.class_folders import read_folders\n"
        "from ensemble_kit.images.tiles.build import build_tiles\n"
        f"t = build_tiles(read_folders({str(manifest.root)!r}), 64, cache_dir={str(tmp_path / 'c')!r})\n"
        "print(hashlib.sha256(t.pixels.tobytes()).hexdigest())\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)
    ]
    digests = {p.communicate()[0] for p in running}
    assert [p.returncode for p in running] == [0, 0, 0]
    assert len(digests) == 1
    assert len(list((tmp_path / "c").glob("*.npy"))) == 1


def test_the_oldest_caches_are_deleted_first(manifest: Manifest, tmp_path: Path) -> None:
    for size in (16, 24, 32):
        build_tiles(manifest, size, cache_dir=tmp_path / "c")
    newest = max((tmp_path / "c").glob("*.npy"), key=lambda p: p.stat().st_size)
    assert prune_cache(tmp_path / "c", max_bytes=newest.stat().st_size) > 0
    assert list((tmp_path / "c").glob("*.npy")) == [newest]


def test_files_of_killed_builds_are_removed(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    old, new = (tmp_path / "c" / f".tiles-x.{i}.part" for i in range(2))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    build_tiles(manifest, 16, cache_dir=tmp_path / "c")
    assert not old.exists()
    assert new.exists()


def test_too_little_disk_space_is_an_error_before_decoding(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles_module, "render", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(EnvironmentFault, match=f"'{tmp_path / 'c'}'.* MiB") as caught:
        build_tiles(manifest, 2_000_000, cache_dir=tmp_path / "c")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_space_that_cannot_be_reserved_is_an_error_before_decoding(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(tiles_module, "render", lambda *a, **k: pytest.fail("decoded"))
    full = mock.Mock(side_effect=OSError(number, "no room"))
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(EnvironmentFault) as caught:
        build_tiles(manifest, 512, cache_dir=tmp_path / "c")
    assert "4.5 MiB" in str(caught.value)
    assert not list((tmp_path / "c").glob(".tiles-*"))


def test_tiles_are_built_without_reservation_of_space(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = np.array(build_tiles(manifest, 16, cache_dir=tmp_path / "c").pixels)
    cannot = mock.Mock(side_effect=OSError(errno.EOPNOTSUPP, "not supported"))
    monkeypatch.setattr(os, "posix_fallocate", cannot, raising=False)
    np.testing.assert_array_equal(build_tiles(manifest, 16, cache_dir=tmp_path / "d").pixels, want)


def test_ids_without_a_tile_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    tiles = build_tiles(manifest, 16, cache_dir=tmp_path / "c")
    assert tiles.rows(tiles.sample_ids[[3, 1]]).tolist() == [3, 1]
    with pytest.raises(DataError):
        tiles.rows(["unknown"])


def test_invalid_sizes_and_crops_are_usage_errors(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[4\]"):
        build_tiles(manifest, 4, cache_dir=tmp_path / "c")
    with pytest.raises(UsageError, match="Did you mean 'squash'"):
        build_tiles(manifest, 16, cache_dir=tmp_path / "c", crop="sqash")


def test_digits_need_no_files(tmp_path: Path) -> None:
    tiles = build_tiles(read_digits().take(np.arange(20)), 8, cache_dir=tmp_path / "c")
    assert tiles.pixels.shape == (20, 8, 8, 3)
    assert tiles.pixels.max() == 255


# -- inputs of members ---------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_phantom(tmp_path / "pairs", n_patients=12, images_per_patient=1, image_size=32)


@pytest.mark.parametrize("join", ["channels", "stack", "side"])
def test_one_stain_of_a_pair_gives_the_tile_of_that_image(
    pairs: Path, tmp_path: Path, join: str
) -> None:
    both = read_bci(pairs, stain="both", join=join)
    he, ihc = (build_tiles(both, 24, cache_dir=tmp_path / "c", stain=s) for s in ("he", "ihc"))
    assert he.digest != ihc.digest
    for stain, tiles in (("he", he), ("ihc", ihc)):
        alone = build_tiles(read_bci(pairs, stain=stain), 24, cache_dir=tmp_path / "alone")
        assert tiles.sample_ids.tolist() == alone.sample_ids.tolist()
        np.testing.assert_array_equal(tiles.pixels, alone.pixels)


def test_inputs_have_different_digests_and_are_decoded_once(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = read_bci(pairs, stain="both", join="channels")
    specs = [
        TileSpec(32), TileSpec(16), TileSpec(32, "he"), TileSpec(32, "ihc"),
        TileSpec(32, "he", "macenko"), TileSpec(32, "he", "reinhard"),
    ]  # fmt: skip
    alone = {
        s: build_tiles(both, s.image_size, cache_dir=tmp_path / "a", stain=s.stain, stain_norm=s.stain_norm)
        for s in specs
    }  # fmt: skip
    read: list[str] = []
    real = join_module.read_image
    monkeypatch.setattr(join_module, "read_image", lambda *a: (read.append(a[1]), real(*a))[1])
    together = build_tile_sets(both, specs, cache_dir=tmp_path / "together")
    assert len(read) == len(set(read)) == 2 * len(both)
    assert len({tiles.digest for tiles in together.values()}) == len(specs)
    for spec, tiles in alone.items():
        assert together[spec].digest == tiles.digest
        np.testing.assert_array_equal(together[spec].pixels, tiles.pixels)
    for method in ("macenko", "reinhard"):
        changed = together[TileSpec(32, "he", method)].pixels
        for got, plain in zip(changed, together[TileSpec(32, "he")].pixels, strict=True):
            np.testing.assert_array_equal(got, normalise(plain, method))


def test_equal_inputs_share_one_file(manifest: Manifest, tmp_path: Path) -> None:
    specs = [TileSpec(16), TileSpec(16, stain_norm="none")]
    one, other = build_tile_sets(manifest, specs, cache_dir=tmp_path / "c").values()
    assert one.digest == other.digest
    assert len(list((tmp_path / "c").glob("*.npy"))) == 1


def test_inputs_that_are_not_in_the_data_are_refused(
    manifest: Manifest, pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"stain='he'.*--stain both"):
        build_tiles(manifest, 16, cache_dir=tmp_path / "c", stain="he")
    both = read_bci(pairs, stain="both")
    with pytest.raises(UsageError, match="'both'"):
        build_tiles(both, 16, cache_dir=tmp_path / "c", stain="both")
    for stain in (None, "ihc"):
        with pytest.raises(DataError, match="IHC"):
            build_tiles(both, 16, cache_dir=tmp_path / "c", stain=stain, stain_norm="macenko")
