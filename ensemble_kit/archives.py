"""Opens zip archives whose list of files is small, and reads arrays of them after all sizes are checked.

Knows nothing of what the arrays mean. Nothing in an archive can run code.
"""

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
# Photographs shrink to a half or a tenth; this much only what was made to fill memory.
BOMB_BYTES, BOMB_RATIO = 2**30, 100
# What zipfile, zlib and numpy raise of damaged or odd archives.
ARCHIVE_FAULTS = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    SyntaxError,
    RuntimeError,  # also NotImplementedError: an unknown way of compressing
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
    """A zip archive; one of a million entries is refused before memory is taken for them.

    Raises
    ------
    OSError, zipfile.BadZipFile
        No archive, or one with a list of files above 8 MiB.
    """
    with _Bounded(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        file.bounded = False
        yield archive


def check_unpacked(path: str | os.PathLike[str]) -> None:
    """Refuse an archive that unpacks to far more than its own size, or to more than fits into memory.

    Raises
    ------
    DataError
        It unpacks to more than 1 GiB, and to more than 100 times its size.
    EnvironmentFault
        It does not fit into the memory that is free.
    OSError, zipfile.BadZipFile
        No archive.
    """
    with open_zip(path) as archive:
        needed = sum(info.file_size for info in archive.infolist())
    packed = Path(path).stat().st_size
    if needed > BOMB_BYTES and needed > BOMB_RATIO * packed:
        raise DataError(
            "A file is too large to be unpacked",
            f"'{os.fspath(path)}' has {_gib(packed)} and unpacks to {_gib(needed)}",
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
        The most that it may unpack to.

    Raises
    ------
    DataError
        No such array; damaged, of Python objects, too large, or of other sizes than its header says.
    EnvironmentFault
        It does not fit into the memory that is free.
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
    """The shape of an array of an `.npz` file, of which only the header is read.

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
        raise zipfile.BadZipFile("it is compressed in another way than numpy does")
    size, packed = info.file_size, max(info.compress_size, 1)
    if size > max_bytes or (size > BOMB_BYTES and size > BOMB_RATIO * packed):
        raise DataError(
            f"The array '{key}' is too large to be unpacked",
            f"'{os.fspath(path)}' stores it in {_gib(packed)} and unpacks it to {_gib(size)}",
            f"Arrays of up to {_gib(max_bytes)} are read, and above {_gib(BOMB_BYTES)} those that "
            f"unpack to at most {BOMB_RATIO} times what they take. Split the array, or store it "
            "with numpy.savez",
        )
    with archive.open(info) as member:
        shape, dtype = _header(member)
        header = member.tell()
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared != size - header:
        raise ValueError(f"its header declares {declared} bytes {shape}; {size - header} are there")
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
            "A file does not fit into the memory",
            f"{what} unpacks to {_gib(needed)}, and {_gib(free)} are free",
            "Close other programs, or use a machine with more memory",
        )


def _damaged(path: str | os.PathLike[str], key: str, error: Exception) -> DataError:
    return DataError(
        "The file must hold whole arrays", f"'{os.fspath(path)}' ({key}): {error}", "Fetch it again"
    )


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"
