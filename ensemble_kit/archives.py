"""Reads arrays from zip archives after their sizes are checked. No code in an archive is run."""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, EnsembleKitError, EnvironmentFault
from ensemble_kit.memory import host_free

MAX_DIRECTORY_BYTES = 8 * 2**20
MAX_ARRAY_BYTES = 16 * 2**30
# Photographs are compressed to a half or a tenth. Such high ratios are made to fill memory.
BOMB_BYTES, BOMB_RATIO = 2**30, 100
# Errors of zipfile, zlib and numpy for damaged archives.
ARCHIVE_FAULTS = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    SyntaxError,
    RuntimeError,  # also NotImplementedError: an unknown compression
    OverflowError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class _Bounded(io.BufferedReader):
    """A file that refuses long reads while the list of files is read."""

    bounded = True

    def read(self, size: int | None = -1) -> bytes:
        if self.bounded and size is not None and size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(
                f"its list of files has {size} bytes; at most {MAX_DIRECTORY_BYTES} are read"
            )
        return super().read(size)


@contextlib.contextmanager
def open_zip(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive. Archives with too many entries are refused before memory is used for them.

    Raises
    ------
    OSError, zipfile.BadZipFile
        The file is not an archive, or its list of files is above 8 MiB.
    """
    with _Bounded(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        file.bounded = False
        yield archive


def check_unpacked(path: str | os.PathLike[str]) -> None:
    """Refuse an archive that unpacks to far more than its size, or does not fit into memory.

    Raises
    ------
    DataError
        The archive unpacks to more than 1 GiB, and to more than 100 times its size.
    EnvironmentFault
        The unpacked archive does not fit into free memory.
    OSError, zipfile.BadZipFile
        The file is not an archive.
    """
    with open_zip(path) as archive:
        needed = sum(info.file_size for info in archive.infolist())
    packed = Path(path).stat().st_size
    if needed > BOMB_BYTES and needed > BOMB_RATIO * packed:
        raise DataError(
            f"'{os.fspath(path)}' has {_gib(packed)} and unpacks to {_gib(needed)}",
            f"files above {_gib(BOMB_BYTES)} may unpack to at most {BOMB_RATIO} times their size",
            "Save it without compression",
        )
    _refuse_lack_of_memory(f"'{os.fspath(path)}'", needed)


def read_array(
    path: str | os.PathLike[str], key: str, *, max_bytes: int = MAX_ARRAY_BYTES
) -> Array:
    """The array called `key` of an `.npz` file.

    Parameters
    ----------
    max_bytes : int
        Largest unpacked size.

    Raises
    ------
    DataError
        The array does not exist, is damaged, holds Python objects, is too large, or does not have the
        size in its header.
    EnvironmentFault
        The array does not fit into free memory.
    """
    try:
        with open_zip(path) as archive:
            shape, dtype = _checked(archive, path, key, max_bytes)
            what = f"'{key}' of '{os.fspath(path)}'"
            _refuse_lack_of_memory(what, math.prod(shape) * dtype.itemsize)
            with archive.open(f"{key}.npy") as member:
                array: Array = np.lib.format.read_array(member, allow_pickle=False)
                return array
    except EnsembleKitError:
        raise
    except ARCHIVE_FAULTS as error:
        raise _damaged(path, key, error) from error


def shape_of(path: str | os.PathLike[str], key: str) -> tuple[int, ...]:
    """The shape of an array of an `.npz` file; only its header is read.

    Raises
    ------
    DataError
        As for `read_array`.
    """
    try:
        with open_zip(path) as archive:
            return _checked(archive, path, key, MAX_ARRAY_BYTES)[0]
    except EnsembleKitError:
        raise
    except ARCHIVE_FAULTS as error:
        raise _damaged(path, key, error) from error


def _checked(
    archive: zipfile.ZipFile, path: str | os.PathLike[str], key: str, max_bytes: int
) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile("it has another compression than numpy uses")
    size, packed = info.file_size, max(info.compress_size, 1)
    if size > max_bytes or (size > BOMB_BYTES and size > BOMB_RATIO * packed):
        raise DataError(
            f"The array '{key}' of '{os.fspath(path)}' is stored in {_gib(packed)} and unpacks to {_gib(size)}",
            f"arrays of up to {_gib(max_bytes)} are read; arrays above {_gib(BOMB_BYTES)} may unpack to at "
            f"most {BOMB_RATIO} times their stored size",
            "Split the array, or store it with numpy.savez",
        )
    with archive.open(info) as member:
        shape, dtype = _header(member)
        header = member.tell()
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared != size - header:
        raise ValueError(
            f"its header declares {declared} bytes {shape}, but it has {size - header}"
        )
    return shape, dtype


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(member)  # type: ignore[no-untyped-call]
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)  # type: ignore[no-untyped-call]
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(member)  # type: ignore[no-untyped-call]
    else:
        raise ValueError(f"its format is {version}, not (1, 0) or (2, 0)")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which need allow_pickle and could run code")
    return shape, dtype


def _refuse_lack_of_memory(what: str, needed: int) -> None:
    free = host_free()
    if needed > free:
        raise EnvironmentFault(
            f"{what} does not fit into memory: it unpacks to {_gib(needed)}",
            f"it must fit into the free memory, {_gib(free)}",
            "Close other programs, or use a machine with more memory",
        )


def _damaged(path: str | os.PathLike[str], key: str, error: Exception) -> DataError:
    return DataError(
        f"'{os.fspath(path)}' ({key}) is damaged or cut off: {error}",
        "an array must be complete",
        "Download or copy the file again",
    )


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"
