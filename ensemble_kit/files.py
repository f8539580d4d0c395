"""Reading, atomic writing, and digests of files."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from ensemble_kit.arrays import Array
from ensemble_kit.atomic_write import atomic_write
from ensemble_kit.errors import DataError, EnvironmentFault, IntegrityError
from ensemble_kit.formulas import guarded, unguarded

MAX_TEXT_BYTES = 64 * 2**20


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` atomically."""
    atomic_write(path, lambda file: file.write(content), n_bytes=len(content))


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write `content` to `path` as UTF-8, atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON; NaN is refused, because JSON has no NaN."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_npy(path: str | os.PathLike[str], array: Array) -> None:
    """Write one array as `.npy`."""
    atomic_write(
        path, lambda file: np.save(file, array, allow_pickle=False), n_bytes=array.nbytes + 128
    )


def write_csv(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write a table as UTF-8 CSV with Unix line ends; floats keep all digits.

    An apostrophe is put before text that a spreadsheet would run as a formula; `read_csv` removes it.
    """
    write_text(path, csv_text(frame))


def csv_text(frame: pd.DataFrame, *, header: bool = True) -> str:
    """The text that `write_csv` writes, with or without the header."""
    safe = _each_text(frame, guarded)
    # A carriage return ends a row unless it is quoted.
    text = safe.to_csv(index=False, lineterminator="\n", header=header)
    if "\r" in text:
        text = safe.to_csv(
            index=False, lineterminator="\n", header=header, quoting=csv.QUOTE_NONNUMERIC
        )
    return text


def _each_text(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The frame with each cell and each column name of text changed."""

    def changed(cell: Any) -> Any:
        return change(cell) if isinstance(cell, str) else cell

    columns = [c if is_numeric_dtype(c) else c.map(changed) for _, c in frame.items()]
    out = pd.concat(columns, axis=1) if columns else frame
    return out.set_axis([changed(name) for name in frame.columns], axis=1)


def refuse_pipe(source: Path) -> None:
    """Refuse a named pipe, socket or device, because reading it may never end.

    Paths under /dev and /proc are accepted, such as the pipes of a shell's `<(...)`.

    Raises
    ------
    DataError
        The file is a pipe, socket or device.
    """
    try:
        mode = source.stat().st_mode
    except OSError:  # the reader raises the error
        return
    ends = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    if not ends and not source.is_relative_to("/dev") and not source.is_relative_to("/proc"):
        what = "pipe" if stat.S_ISFIFO(mode) else "socket or a device"
        raise DataError(f"'{source}' is a {what}", "only regular files are read", "Check the path")


def read_text(path: str | os.PathLike[str], *, limit: int | None = MAX_TEXT_BYTES) -> str:
    """The UTF-8 text of a regular file of at most `limit` bytes; 64 MiB by default.

    Raises
    ------
    DataError
        The file is missing, not a regular file, too large, or not UTF-8.
    """
    source = Path(path)
    refuse_pipe(source)
    try:
        if limit is not None and source.stat().st_size > limit:
            raise DataError(
                f"'{source}' is larger than 64 MiB",
                "text files of at most 64 MiB are read",
                "Check the path",
            )
        # Line ends are not translated: a cell of a table may contain a carriage return.
        return source.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"'{source}' cannot be read: {error}", "a UTF-8 text file is needed", "Check the path"
        ) from error


def read_json(path: str | os.PathLike[str], *, limit: int | None = MAX_TEXT_BYTES) -> Any:
    """The value in a JSON file of at most `limit` bytes.

    Raises
    ------
    DataError
        The file is missing or not JSON.
    """
    text = read_text(path, limit=limit)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"'{path}' cannot be read: {error}", "a JSON file is needed", "Restore or delete it"
        ) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The table in a TOML file.

    Raises
    ------
    DataError
        The file is missing or not TOML.
    """
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"'{path}' cannot be read: {error}", "a TOML file is needed", "Correct that line"
        ) from error


def read_npy(path: str | os.PathLike[str]) -> Array:
    """One array of a `.npy` file; no code in it is run.

    Raises
    ------
    IntegrityError
        The file is missing, damaged or cut off.
    """
    try:
        refuse_pipe(Path(path))
        array: Array = np.load(path, allow_pickle=False)
        return array
    except (OSError, ValueError, EOFError) as error:
        raise IntegrityError(
            f"'{path}' is damaged: {error}",
            "stored arrays must be complete .npy files",
            "Delete it and run the same command",
        ) from error


def read_csv(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A CSV table that `write_csv` wrote, every cell as text, empty cells as empty text.

    Raises
    ------
    DataError
        The file is missing, empty, or not a table.
    """
    text = read_text(path, limit=None)
    try:
        frame = pd.read_csv(io.StringIO(text, newline=""), dtype=str, keep_default_na=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(
            f"'{path}' cannot be read: {error}",
            "a CSV table with a header is needed",
            "Correct the file",
        ) from error
    return _each_text(frame, unguarded)


def digest_bytes(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON; it does not depend on the order of keys.

    Examples
    --------
    >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return digest_bytes(text.encode())


def cache_folder() -> Path:
    """The folder for decoded tiles: `ENSEMBLE_KIT_CACHE`, else the user's cache folder.

    Raises
    ------
    EnvironmentFault
        There is no such folder.
    """
    own = os.environ.get("ENSEMBLE_KIT_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "ensemble-kit"
    except RuntimeError as error:
        raise EnvironmentFault(
            f"There is no cache folder: HOME is not set, and user {os.getuid()} has no home folder",
            "decoded images need one",
            "Set ENSEMBLE_KIT_CACHE to a folder with room",
        ) from error
