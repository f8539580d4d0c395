"""An image in memory gives the same pixels, digest and errors as its file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.inference.sources import content_source, file_source


@pytest.mark.parametrize("n_parts", [1, 2])
def test_content_has_the_pixels_and_the_digest_of_its_files(slides: Path, n_parts: int) -> None:
    paths = ["benign/P00_0.png", "malignant/P10_0.png"][:n_parts]
    there = file_source(slides, paths[0], name="x", pair_path="".join(paths[1:]))
    here = content_source([(slides / path).read_bytes() for path in paths], name="x")
    assert here.digest is not None
    assert there.digest is not None
    assert here.digest() == there.digest()
    np.testing.assert_array_equal(here.read(here.path), there.read(there.path))
    assert bool(here.pair_path) == (n_parts == 2)
    if here.pair_path:
        np.testing.assert_array_equal(here.read(here.pair_path), there.read(there.pair_path))


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]
)
def test_invalid_content_gives_the_same_error_as_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    messages = []
    for source in (file_source(tmp_path, "x", name="x"), content_source([content], name="x")):
        with pytest.raises(DataError) as caught:
            source.read(source.path)
        messages.append(re.sub("0x[0-9a-f]+", "", str(caught.value)))
    assert messages[0] == messages[1]


def test_arrays_have_no_digest() -> None:
    source = content_source([np.zeros((9, 9, 3), np.uint8)], name="x")
    assert source.digest is None
    assert source.read(source.path).shape == (9, 9, 3)
