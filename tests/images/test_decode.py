"""Odd images have a rule or are refused by name."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.errors import DataError
from ensemble_kit.images.decode import read_image


def ramp(dtype: type = np.uint8, top: float = 255) -> np.ndarray:
    return np.tile(np.linspace(0, top, 64), (32, 1)).astype(dtype)


def noise(seed: int = 0, shape: tuple[int, ...] = (32, 64, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_rgb_pixels_come_back_unchanged(tmp_path: Path) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path, "a.png"), noise())


def test_row_14_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "zero.png").touch()
    with pytest.raises(DataError, match=r"'zero.png' is empty \(0 bytes\)"):
        read_image(tmp_path, "zero.png")


def test_row_14_html_saved_as_jpg_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(DataError, match=r"'page.jpg': it is a text \(HTML"):
        read_image(tmp_path, "page.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "webp"])
def test_row_15_half_a_file_is_found_by_full_decoding(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(noise()).save(tmp_path / f"whole.{suffix}")
    content = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"half.{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"'half.{suffix}'"):
        read_image(tmp_path, f"half.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_row_17_a_16_bit_ramp_keeps_its_contrast(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(ramp(np.uint16, 65535)).save(tmp_path / f"r.{suffix}")
    out = read_image(tmp_path, f"r.{suffix}")
    assert out.std() > 40
    np.testing.assert_array_equal(
        out[:, :, 0], np.rint(ramp(np.uint16, 65535) / 257).astype(np.uint8)
    )


def test_row_18_12_bit_values_in_16_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(ramp(np.uint16, 4095)).save(tmp_path / "r.tif")
    with pytest.raises(DataError, match=r"values 0 .. 4095"):
        read_image(tmp_path, "r.tif")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_row_18_float_and_32_bit_images_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(ramp(dtype, 1 if dtype == np.float32 else 10**6)).save(tmp_path / "r.tif")
    with pytest.raises(DataError, match=r"'r\.tif'"):
        read_image(tmp_path, "r.tif")


def test_row_19_every_mode_has_its_golden_pixels(tmp_path: Path) -> None:
    half = np.full((8, 8, 1), 128, np.uint8)
    red = np.broadcast_to(np.array([255, 0, 0], np.uint8), (8, 8, 3))
    Image.fromarray(np.concatenate([red, half], 2)).save(tmp_path / "rgba.png")
    Image.fromarray(np.concatenate([half * 0, half], 2)).save(tmp_path / "la.png")
    Image.fromarray(np.ascontiguousarray(red)).convert("P").save(tmp_path / "p.png")
    Image.fromarray(np.ones((8, 8), bool)).save(tmp_path / "1.png")
    Image.fromarray(half[:, :, 0]).save(tmp_path / "l.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")
    golden = {
        "rgba.png": (255, 127, 127),
        "la.png": (127, 127, 127),
        "p.png": (255, 0, 0),
        "1.png": (255, 255, 255),
        "l.png": (128, 128, 128),
        "cmyk.tif": (255, 0, 0),
    }
    for name, colour in golden.items():
        out = read_image(tmp_path, name)
        assert out.shape == (8, 8, 3)
        assert tuple(out[4, 4].tolist()) == colour, name


def test_row_19_transparent_palette_colours_lie_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0] * 256)
    image.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path, "p.png").min() == 255


def test_row_20_all_eight_orientations_show_the_same_picture(tmp_path: Path) -> None:
    upright = noise(shape=(16, 24, 3))
    undo = {1: (), 2: (0,), 3: (3,), 4: (1,), 5: (5,), 6: (2,), 7: (6,), 8: (4,)}
    for orientation, turns in undo.items():
        image = Image.fromarray(upright)
        for turn in turns:
            image = image.transpose(Image.Transpose(turn))
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / f"{orientation}.png", exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path, f"{orientation}.png"), upright)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp", "a.png"])
def test_row_21_several_pictures_in_a_file_are_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(noise(i)) for i in range(5)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds 5"):
        read_image(tmp_path, name)


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("side", [10_000, 50_000])
def test_row_22_a_header_that_claims_gigapixels_is_refused_before_decoding(
    tmp_path: Path, side: int
) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(DataError, match=r"'bomb\.png'"):
        read_image(tmp_path, "bomb.png")


def test_row_23_a_format_off_the_list_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(DataError, match=r"'a.png': no image in one of the formats PNG"):
        read_image(tmp_path, "a.png")


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (10, 5000, 3), (7, 7, 3)])
def test_row_24_slivers_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    Image.fromarray(noise(shape=shape)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"'a.png' is {shape[1]} x {shape[0]}"):
        read_image(tmp_path, "a.png")


def test_row_25_a_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="plain files"):
        read_image(tmp_path, "a.png")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "link.png"])
def test_row_51_no_path_leaves_the_data_folder(tmp_path: Path, path: str) -> None:
    Image.fromarray(noise()).save(tmp_path / "secret.png")
    home = tmp_path / "data"
    home.mkdir()
    (home / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="stay inside"):
        read_image(home, path)


@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_give_pixels_or_a_data_error_never_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "tif", "gif", "webp", "bmp", "ppm"):
        Image.fromarray(noise()).save(tmp_path / f"a.{suffix}")
        content = bytearray((tmp_path / f"a.{suffix}").read_bytes())
        for _ in range(25):
            broken = bytearray(content)
            for at in rng.integers(0, min(len(broken), 400), 3):
                broken[at] ^= int(rng.integers(1, 256))
            (tmp_path / "b").write_bytes(broken)
            # Whatever else is raised ends the test.
            with contextlib.suppress(DataError):
                assert read_image(tmp_path, "b").shape[2] == 3
