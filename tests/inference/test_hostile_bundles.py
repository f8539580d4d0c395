"""Hostile bundles with matching digests are refused with an error of the package. No code of them runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ensemble_kit.checked import OWN_DIGEST, write_checked
from ensemble_kit.errors import DataError, EnsembleKitError, IntegrityError
from ensemble_kit.export.bundle import export_bundle
from ensemble_kit.files import digest_bytes
from ensemble_kit.inference.bundle_files import RECORD
from ensemble_kit.inference.ensemble import load_ensemble

# Keys of the record that are only for readers.
FOR_READERS = {"created", "created_by", "name", "preprocessing", "folds", "distilled"}
ODD: tuple[Any, ...] = (None, "x", 10**30, [[]], {"x": {}})


@pytest.fixture(scope="module")
def bundle(stacked: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "b"
    export_bundle(stacked.run, out, method="simplex", folds="best")
    return out


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "own"))


def opened_with(own: Path, record: dict[str, Any]) -> None:
    """Open it with another record that has a matching digest."""
    write_checked(own / RECORD, record)
    assert isinstance(load_ensemble(own, device="cpu").card, str)


def record_of(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / RECORD).read_text()))


MEMBER, NETWORK = ("members", 0), ("members", 0, "networks", 0)
TOP = (
    "method", "class_names", "ordinal", "positive", "group_kind", "data", "members", "combiner",
    "pooling", "costs", "sets", "decision", "made_of", "notes", "known_images", "graph", "files",
)  # fmt: skip
KEYS: list[tuple[Any, ...]] = [
    *((one,) for one in TOP), ("data", "name"), (*MEMBER, "name"), (*MEMBER, "settings"),
    (*MEMBER, "settings", "recipe"), (*MEMBER, "settings", "network"), (*MEMBER, "networks"),
    (*NETWORK, "fold"), (*NETWORK, "weights"), (*NETWORK, "mean"), (*NETWORK, "outputs"),
    ("combiner", "combiner"), ("combiner", "params"), ("combiner", "state"),
    ("combiner", "class_names"), ("combiner", "arrays"), ("sets", "thresholds"),
    ("sets", "score"), ("decision", "units"), ("decision", "class"), ("known_images", "digests"),
    ("files", "README.md"), ("files", "golden.json"),
]  # fmt: skip


def test_the_changed_keys_cover_every_key_of_the_record(bundle: Path) -> None:
    assert set(record_of(bundle)) - {"schema_version", OWN_DIGEST} - FOR_READERS == set(TOP)


def with_odd_values(whole: dict[str, Any], key: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    for value in (*ODD, KeyError):
        record = json.loads(json.dumps(whole))
        table = record
        for one in key[:-1]:
            table = table[one]
        if value is KeyError:
            del table[key[-1]]
        else:
            table[key[-1]] = value
        yield record


@pytest.mark.parametrize("key", KEYS, ids=lambda key: "-".join(map(str, key)))
def test_a_record_with_an_unexpected_value_raises_no_foreign_exception(
    own: Path, key: tuple[Any, ...]
) -> None:
    # Any other exception is a bug.
    for record in with_odd_values(record_of(own), key):
        with contextlib.suppress(EnsembleKitError):
            opened_with(own, record)


def with_file(own: Path, name: str, content: bytes) -> dict[str, Any]:
    (own / name).write_bytes(content)
    record = record_of(own)
    record["files"][name] = {"sha256": digest_bytes(content), "bytes": len(content)}
    return record


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"images": []}', b'{"images": [{"file": "bundle.json"}]}', b"\xff"]
)  # fmt: skip
def test_golden_predictions_that_cannot_be_read_are_refused(own: Path, content: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"own"):
        opened_with(own, with_file(own, "golden.json", content))


def _png_of(width: int, height: int) -> bytes:
    """A small PNG file whose header says that it is a large picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")  # fmt: skip


def _text() -> bytes:
    return b"<html>"


def _tiff() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, format="TIFF")
    return out.getvalue()


@pytest.mark.parametrize("content", [_png_of(50_000, 50_000), _png_of(9_000, 9_000), _text(), _tiff(), b""])  # fmt: skip
def test_golden_images_that_are_huge_or_not_png_are_refused(own: Path, content: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"golden/0\.png"):
        opened_with(own, with_file(own, "golden/0.png", content))


def test_a_pipe_instead_of_a_file_is_refused(own: Path) -> None:
    (own / "golden.json").unlink()
    os.mkfifo(own / "golden.json")
    with pytest.raises(IntegrityError, match=r"golden\.json"):
        load_ensemble(own, device="cpu")


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside"])
def test_a_link_out_of_the_bundle_is_not_followed(own: Path, target: str) -> None:
    secret = own.parent / "outside"
    secret.write_text("secret")
    (own / "golden.json").unlink()
    (own / "golden.json").symlink_to(target)
    with pytest.raises(IntegrityError, match=r"golden\.json"):
        load_ensemble(own, device="cpu")


def test_a_zip_with_a_wrong_entry_size_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "lies.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in sorted(bundle.rglob("*")):
            if one.is_file():
                archive.write(one, one.relative_to(bundle).as_posix())
    content = bytearray(path.read_bytes())
    # The central directory says that the first entry unpacks to 10 bytes.
    start = content.rindex(b"PK\x01\x02", 0, content.index(b"PK\x01\x02") + 4)
    content[start + 24 : start + 28] = struct.pack("<I", 10)
    path.write_bytes(bytes(content))
    with pytest.raises((IntegrityError, DataError)):
        load_ensemble(path, device="cpu")


def test_a_refused_bundle_leaves_no_files(own: Path, cli: Callable[..., Any]) -> None:
    before = sorted(p.relative_to(own) for p in own.rglob("*"))
    (own / "evil.py").write_text("raise SystemExit")
    code, printed = cli("predict", own / "golden" / "0.png", "--run", own, "--out", "out.csv")
    assert code == 7
    assert "evil.py" in printed
    (own / "evil.py").unlink()
    assert sorted(p.relative_to(own) for p in own.rglob("*")) == before
    assert not Path("out.csv").exists()
