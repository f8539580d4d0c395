"""Decoding of unusual images: by explicit rules, or refused by name."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

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


def test_row_14_html_saved_as_jpg_is_reported_as_text(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(DataError, match=r"'page.jpg': it is a text \(HTML"):
        read_image(tmp_path, "page.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "webp"])
def test_row_15_half_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
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


def png(folder: Path, name: str, values: np.ndarray, *, extra: bytes = b"") -> None:
    """A 16-bit PNG of one to four channels, which Pillow cannot write."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (folder / name).write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
        + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )  # fmt: skip


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tif(
    folder: Path, name: str, values: np.ndarray, *, photometric: int, planes: bool = False
) -> None:
    """An uncompressed little-endian 16-bit TIFF; a fourth channel of RGB is its transparency."""
    height, width, n = values.shape
    parts = [values[:, :, c] for c in range(n)] if planes else [values]
    bodies = [part.astype("<u2").tobytes() for part in parts]
    starts = [4096 + sum(map(len, bodies[:i])) for i in range(len(bodies))]
    tags = {
        256: [width], 257: [height], 258: [16] * n, 259: [1], 262: [photometric], 273: starts,
        277: [n], 278: [height], 279: [len(b) for b in bodies], 284: [1 + planes],
        **({338: [2]} if photometric == 2 and n == 4 else {}),
    }  # fmt: skip
    entries, far = b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(packed) > 4:
            packed, far = struct.pack("<I", 1024 + len(far)), far + packed
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    (folder / name).write_bytes(
        (head.ljust(1024, b"\0") + far).ljust(4096, b"\0") + b"".join(bodies)
    )


def deep(n: int, top: int, *, alpha: int | None = None) -> np.ndarray:
    """Noise of 0 .. top - 1 in 16 bits, shape (16, 24, n); with an alpha channel, behind it."""
    values = np.random.default_rng(0).integers(0, top, (16, 24, n))
    values[0, 0] = top - 1
    if alpha is None:
        return values
    return np.concatenate([values, np.full((16, 24, 1), alpha)], 2)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", ["rgb.png", "la.png", "rgba.png", "grey.png", "rgb.tif", "rgba.tif",
                                  "planes.tif", "grey.tif", "inverted.tif", "cmyk.tif",
                                  "rgb.ppm"])  # fmt: skip
def test_row_18_few_bits_in_16_are_refused_in_every_layout(
    tmp_path: Path, kind: str, bits: int
) -> None:
    write_deep(tmp_path, kind, 2**bits)
    with pytest.raises(DataError) as caught:
        read_image(tmp_path, kind)
    assert f"'{kind}'" in caught.value.problem


def write_deep(folder: Path, kind: str, top: int) -> np.ndarray:
    """A 16-bit file with values below `top`; its colours, shape (16, 24, 1, 3 or 4)."""
    layout, suffix = kind.split(".")
    n = {"la": 1, "grey": 1, "inverted": 1, "cmyk": 4}.get(layout, 3)
    values = deep(n, top, alpha=65535 if layout in ("la", "rgba") else None)
    if suffix == "png":
        png(folder, kind, values)
    elif suffix == "ppm":
        (folder / kind).write_bytes(b"P6 24 16 65535\n" + values.astype(">u2").tobytes())
    else:
        photometric = {"grey": 1, "inverted": 0, "cmyk": 5}.get(layout, 2)
        tif(folder, kind, values, photometric=photometric, planes=layout == "planes")
    return values[:, :, :n]


@pytest.mark.parametrize("kind", ["rgb.png", "la.png", "rgba.png", "grey.png", "rgb.tif", "rgba.tif",
                                  "grey.tif", "rgb.ppm"])  # fmt: skip
def test_row_17_16_bit_images_are_converted_to_8_bits(tmp_path: Path, kind: str) -> None:
    values = write_deep(tmp_path, kind, 65536)
    shown = np.broadcast_to(values / 257, (16, 24, 3))
    np.testing.assert_allclose(read_image(tmp_path, kind), shown, atol=1)


def test_row_17_16_bit_grey_with_white_as_0_is_inverted(tmp_path: Path) -> None:
    values = write_deep(tmp_path, "inverted.tif", 65536)
    shown = np.rint((65535 - values) / 257)
    np.testing.assert_array_equal(read_image(tmp_path, "inverted.tif")[:, :, :1], shown)


def test_row_18_a_transparency_of_12_bits_or_a_transparent_colour_in_16_is_refused(
    tmp_path: Path,
) -> None:
    png(tmp_path, "alpha.png", deep(3, 65536, alpha=4095))
    png(tmp_path, "key.png", deep(3, 65536), extra=chunk(b"tRNS", bytes(6)))
    for name in ("alpha.png", "key.png"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path, name)
    png(tmp_path, "clear.png", deep(3, 65536, alpha=0))
    assert read_image(tmp_path, "clear.png").min() == 255


def test_a_portable_pixmap_is_scaled_by_its_maximum(tmp_path: Path) -> None:
    values = deep(3, 4096)
    (tmp_path / "a.ppm").write_bytes(b"P6 24 16 4095\n" + values.astype(">u2").tobytes())
    np.testing.assert_allclose(read_image(tmp_path, "a.ppm"), values * 255 / 4095, atol=1)
    (tmp_path / "dark.ppm").write_bytes(b"P6 24 16 255\n" + bytes(16 * 24 * 3))
    assert read_image(tmp_path, "dark.ppm").max() == 0


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


def test_row_19_transparent_palette_colours_become_white(tmp_path: Path) -> None:
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
def test_row_22_an_image_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")  # 100 megapixels in 12 kB
    with pytest.raises(DataError) as caught:
        read_image(tmp_path, "bomb.png")
    assert "'bomb.png' is 10000 x 10000" in caught.value.problem


def test_row_22_a_header_with_gigapixels_is_refused(tmp_path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError) as caught:
        read_image(tmp_path, "bomb.png")
    assert "'bomb.png'" in caught.value.problem
    assert "2500000000 pixels" in caught.value.problem


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"tEXt", b"iTXt"])
def test_a_png_with_a_colour_profile_or_text_of_megabytes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes, where: str
) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 2**12)  # so that megabytes are kilobytes
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 2**14)
    large = np.random.default_rng(0).bytes(2**13)
    body = {
        b"iCCP": b"name\0\0" + zlib.compress(large, 1),
        b"zTXt": b"name\0\0" + zlib.compress(bytes(2**20)),  # unpacks to 1000 times its size
        b"tEXt": b"name\0" + bytes(2**15),
        b"iTXt": b"name\0\1\0\0\0" + zlib.compress(large, 1),
    }[kind]
    Image.fromarray(noise()).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    at = 33 if where == "before" else len(content) - 12  # after IHDR, or before IEND
    (tmp_path / "a.png").write_bytes(content[:at] + chunk(kind, body) + content[at:])
    np.testing.assert_array_equal(read_image(tmp_path, "a.png"), noise())


def test_row_20_an_orientation_beside_a_large_profile_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = np.random.default_rng(0).bytes(2**20 + 1)
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=exif, icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path, "a.png"), np.rot90(noise(), -1))


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_first_picture_of_a_camera_s_jpeg_with_a_preview_is_read(
    tmp_path: Path, orientation: int
) -> None:
    image = Image.fromarray(noise())
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "plain.jpg", exif=exif)
    preview = image.resize((32, 16))
    image.save(tmp_path / "mpo.jpg", "MPO", save_all=True, append_images=[preview], exif=exif)
    got = read_image(tmp_path, "mpo.jpg")
    assert got.shape == ((32, 64, 3) if orientation == 1 else (64, 32, 3))
    np.testing.assert_array_equal(got, read_image(tmp_path, "plain.jpg"))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\x06\0\x12\x01",
                                  b"Exif\0\0garbage!!"])  # fmt: skip
def test_row_20_broken_exif_leaves_the_picture_as_it_is(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path, "a.jpg").shape == (32, 64, 3)


def test_a_large_image_is_copied_completely(tmp_path: Path) -> None:
    pixels = noise(
        shape=(1001, 4207, 3)
    )  # above what is copied at once, and no multiple of a strip
    Image.fromarray(pixels).save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read_image(tmp_path, "a.bmp"), pixels)


def test_a_lack_of_memory_is_a_memory_error_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noise()).save(tmp_path / "a.png")
    for error in (MemoryError(), OSError("out of memory when reading image file")):
        monkeypatch.setattr(ImageFile.ImageFile, "load", mock.Mock(side_effect=error))
        with pytest.raises(MemoryError, match=r"'a\.png'"):
            read_image(tmp_path, "a.png")


def test_row_23_an_unsupported_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(DataError, match=r"'a\.png'"):
        read_image(tmp_path, "a.png")


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (10, 5000, 3), (7, 7, 3)])
def test_row_24_small_and_narrow_images_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    Image.fromarray(noise(shape=shape)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"'a.png' is {shape[1]} x {shape[0]}"):
        read_image(tmp_path, "a.png")


def test_row_25_a_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError):
        read_image(tmp_path, "a.png")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../secret.png"])
def test_row_51_paths_outside_the_data_folder_are_refused(tmp_path: Path, path: str) -> None:
    Image.fromarray(noise()).save(tmp_path / "secret.png")
    home = tmp_path / "data"
    home.mkdir()
    with pytest.raises(DataError):
        read_image(home, path)


def test_a_link_into_a_cache_is_read(tmp_path: Path) -> None:
    home, blob = tmp_path / "data", tmp_path / "blob-without-suffix"
    home.mkdir()
    Image.fromarray(noise()).save(blob, "PNG")
    (home / "link.png").symlink_to(blob)
    np.testing.assert_array_equal(read_image(home, "link.png"), noise())


@pytest.mark.filterwarnings("ignore")
def test_changed_bytes_give_pixels_or_a_data_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "tif", "gif", "webp", "bmp", "ppm"):
        Image.fromarray(noise()).save(tmp_path / f"a.{suffix}")
        content = bytearray((tmp_path / f"a.{suffix}").read_bytes())
        for _ in range(25):
            broken = bytearray(content)
            for at in rng.integers(0, min(len(broken), 400), 3):
                broken[at] ^= int(rng.integers(1, 256))
            (tmp_path / "b").write_bytes(broken)
            # Any other error fails the test.
            with contextlib.suppress(DataError):
                assert read_image(tmp_path, "b").shape[2] == 3
