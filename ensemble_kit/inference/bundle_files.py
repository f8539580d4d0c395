"""The files of a bundle, read from its folder or its zip archive. Each is checked before it is used.

Nothing is unpacked to the disk. No file can run code.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ensemble_kit.archives import ARCHIVE_FAULTS, check_unpacked, open_zip
from ensemble_kit.checked import OWN_DIGEST
from ensemble_kit.errors import DataError, EnsembleKitError, IntegrityError, first_few
from ensemble_kit.files import MAX_TEXT_BYTES, digest_bytes, digest_json

RECORD, CARD = "bundle.json", "README.md"
SCHEMA_VERSION = 1
ODD_PARTS = (
    LookupError, TypeError, ValueError, AttributeError, OverflowError, SyntaxError, RecursionError,
)  # fmt: skip
AGAIN = "Copy the bundle again from where it was made, or export it again"


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with `bundle.json`, or a zip archive."""
    place = Path(path)
    return (place / RECORD).is_file() or (place.is_file() and place.suffix.lower() == ".zip")


class BundleFiles:
    """The files of one bundle, from `open_files`.

    Parameters
    ----------
    path : path
        The folder or the archive.
    record : mapping
        The content of `bundle.json`.
    digest : str
        Digest of that content. The content holds the digests of all other files.
    card : str
        The model card as it is now.
    card_changed : bool
        Whether the model card was edited after the export.
    """

    def __init__(self, path: Path, place: _Place, record: Mapping[str, Any], digest: str) -> None:
        self.path, self.record, self.digest = path, record, digest
        self._place, self._listed = place, record["files"]
        self._checked: set[str] = set()
        card = place.read(CARD, MAX_TEXT_BYTES) if CARD in self._listed else b""
        self.card = card.decode("utf-8", errors="replace")
        self.card_changed = digest_bytes(card) != self._listed.get(CARD, {}).get("sha256")

    def has(self, name: str) -> bool:
        """Whether the bundle's record lists a file."""
        return name in self._listed

    def read(self, name: str) -> bytes:
        """The content of a listed file. Its digest is checked.

        Raises
        ------
        IntegrityError
            The file is missing, changed, or not listed.
        """
        if name not in self._listed:
            raise _damaged(self.path, f"its record does not list the file '{name}'")
        about = self._listed[name]
        content = self._place.read(name, int(about["bytes"]))
        if digest_bytes(content) != about["sha256"]:
            raise _damaged(self.path, f"the file '{name}' does not match its digest")
        self._checked.add(name)
        return content

    def check_rest(self) -> None:
        """Check the digests of all files that were not read yet, except the model card."""
        for name in set(self._listed) - self._checked - {CARD}:
            self.read(name)


@contextlib.contextmanager
def open_files(path: str | os.PathLike[str]) -> Iterator[BundleFiles]:
    """The files of the bundle at `path`. Its record is checked.

    Raises
    ------
    DataError
        There is no bundle, or the zip archive unpacks to far more than its size.
    IntegrityError
        The record is damaged or of a newer version. Or a file is missing, unexpected, or outside the
        bundle.
    """
    place = Path(path)
    if place.is_file():
        with _opened_zip(place) as archive:
            yield _checked(place, _Archive(place, archive))
    else:
        yield _checked(place, _Folder(place))


@contextlib.contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        check_unpacked(path)
        with open_zip(path) as archive:
            yield archive
    except EnsembleKitError:
        raise
    except ARCHIVE_FAULTS as error:
        raise _damaged(path, f"it is not a complete zip archive ({error})") from error


def _checked(path: Path, place: _Place) -> BundleFiles:
    names = place.names()
    for name in names:
        _refuse_outside(path, name)
    if RECORD not in names:
        raise DataError(
            f"'{path}' is not a bundle",
            f"it has no {RECORD}",
            "Name a folder or .zip that ensemble-kit export wrote, or a run folder",
        )
    record, digest = _record(path, place.read(RECORD, MAX_TEXT_BYTES))
    listed = record.get("files")
    if not isinstance(listed, dict) or not all(map(_is_listed, listed.values())):
        raise _damaged(path, f"{RECORD} lists no files with their digests and sizes")
    if missing := sorted(set(listed) - set(names) - {CARD}):
        raise _damaged(path, f"missing: {first_few(missing)}")
    if unknown := sorted(n for n in set(names) - set(listed) - {RECORD, CARD} if not _hidden(n)):
        raise IntegrityError(
            f"'{path}' has files that are not part of the bundle: {first_few(unknown)}",
            f"{RECORD} lists all files of a bundle",
            "Remove them, or get the bundle again from a source that you trust",
        )
    return BundleFiles(path, place, record, digest)


def _is_listed(about: Any) -> bool:
    if not isinstance(about, dict) or not isinstance(about.get("sha256"), str):
        return False
    return type(about.get("bytes")) is int and about["bytes"] >= 0


def _hidden(name: str) -> bool:
    """Whether a file belongs to version control or a file manager."""
    return any(part.startswith(".") for part in name.split("/")) or name.startswith("__MACOSX/")


def _record(path: Path, content: bytes) -> tuple[dict[str, Any], str]:
    try:
        record = json.loads(content.decode("utf-8"))
        if not isinstance(record, dict):
            raise ValueError("it holds no JSON object")
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"{RECORD} cannot be read ({error})") from error
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise IntegrityError(
            f"'{path}' is a bundle of schema version {version}",
            f"this version of ensemble-kit reads version {SCHEMA_VERSION}",
            "Install the version of ensemble-kit that wrote it: see created_by in " + RECORD,
        )
    digest = record.pop(OWN_DIGEST, None)
    if digest is None or digest != digest_json(record):
        raise _damaged(path, f"{RECORD} was changed since it was written")
    return record, digest


def _refuse_outside(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
        raise IntegrityError(
            f"'{path}' has a file with a path outside the bundle: '{name}'",
            "all files must be inside the bundle",
            "Get the bundle again from a source that you trust",
        )


def _damaged(path: Path, what: str) -> IntegrityError:
    return IntegrityError(f"The bundle '{path}' is damaged", what, AGAIN)


@contextlib.contextmanager
def refusing_odd_parts(path: Path) -> Iterator[None]:
    """Turn the exceptions of missing or unexpected values of a record into an `IntegrityError`."""
    try:
        yield
    except EnsembleKitError:
        raise
    except ODD_PARTS as error:
        raise IntegrityError(
            f"The bundle '{path}' cannot be opened",
            f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}",
            AGAIN,
        ) from error


class _Place:
    def names(self) -> list[str]:
        """The paths of all files, with slashes."""
        raise NotImplementedError

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file, at most one byte more than `limit`."""
        raise NotImplementedError


class _Folder(_Place):
    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        return [
            Path(root, name).relative_to(self._path).as_posix()
            for root, _, names in os.walk(self._path)
            for name in names
        ]

    def read(self, name: str, limit: int) -> bytes:
        try:
            # Opening a pipe would block forever.
            if not (self._path / name).is_file():
                raise _damaged(self._path, f"'{name}' is not a file")
            with (self._path / name).open("rb") as file:
                return file.read(limit + 1)
        except OSError as error:
            raise _damaged(self._path, f"'{name}' cannot be read ({error.strerror})") from error


class _Archive(_Place):
    """A zip archive with its files at the root, or all in one folder."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        every = [one.filename for one in archive.infolist() if not one.is_dir()]
        if len(set(every)) < len(every):
            raise _damaged(path, "two of its files have the same name")
        tops = {name.partition("/")[0] for name in every if not _hidden(name)}
        top = next(iter(tops)) if len(tops) == 1 else ""
        self._top = f"{top}/" if f"{top}/{RECORD}" in every else ""
        self._every = every

    def names(self) -> list[str]:
        return [name.removeprefix(self._top) for name in self._every]

    def read(self, name: str, limit: int) -> bytes:
        try:
            with self._archive.open(self._top + name) as file:
                return file.read(limit + 1)
        except ARCHIVE_FAULTS as error:
            raise _damaged(self._path, f"'{name}' cannot be read ({error})") from error
