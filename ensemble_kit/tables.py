"""Reads a user's tables: CSV with any usual separator, all cells as text."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.files import MAX_TEXT_BYTES, refuse_pipe

# Files that may be tables; the last four are refused with advice.
SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".xlsx", ".xls", ".ods", ".parquet")
SEPARATORS = (",", ";", "\t", "|")
SAVE_AS = "Save the table as CSV with the encoding UTF-8 (in a spreadsheet: Save as, CSV UTF-8)"
# First bytes of files that are not text.
BINARY = {
    b"PK\x03\x04": "an Excel workbook (.xlsx) or another zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip archive",
}
# White space, control characters and characters without width, at either end of a cell.
_OUTER = r"[\s\x00-\x1f\x7f\u00ad\u200b-\u200f\u2060\ufeff]+"
OUTER_SPACE = re.compile(rf"^{_OUTER}|{_OUTER}$")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")


@dataclasses.dataclass(frozen=True, eq=False)
class UserTable:
    """A user's table.

    Parameters
    ----------
    path : path
    frame : pandas.DataFrame
        Text cells and column names without white space at their ends; empty cells are "".
    lines : tuple of int
        The line of the file on which each row begins.
    separator : str
    notes : tuple of str
        Notes about values that became equal because white space was removed.
    """

    path: Path
    frame: pd.DataFrame
    lines: tuple[int, ...]
    separator: str = ","
    notes: tuple[str, ...] = ()

    def where(self, rows: npt.ArrayLike, n: int = 5) -> str:
        """The lines of the rows under a mask, for a message: `lines 3, 7 and 2 more`."""
        lines = np.asarray(self.lines)[np.asarray(rows)]
        return f"{'line' if len(lines) == 1 else 'lines'} {first_few(lines, n)}"


def read_table(path: str | os.PathLike[str], *, first: str | None = None) -> UserTable:
    """A user's table: separated by commas, semicolons, tabs or bars, in UTF-8 or UTF-16.

    Empty cells at the end of a row, rows without a value, a first line `sep=;` and the row numbers
    that pandas writes into a column without a name are left out.

    Parameters
    ----------
    path : path
    first : str, optional
        Name of the first column, which replaces the one in the header.

    Raises
    ------
    DataError
        The file is missing, not text, in another encoding, or has no header; a column name is
        repeated; or a row has more cells than the header.
    """
    source = Path(path)
    text, separator = _separated(_text(source))
    try:
        records = _records(text, separator)
    except csv.Error as error:
        raise DataError(
            f"'{source}' is not a CSV table: {error}", "a CSV table is needed", SAVE_AS
        ) from error
    if not records:
        raise DataError(f"'{source}' is empty", "a table needs a header", "Check the file")
    (_, header), *rows = records
    _refuse_long(source, header, rows)
    header = header if first is None else [first, *header[1:]]
    cells = [row + [""] * (len(header) - len(row)) for _, row in rows]
    raw = pd.DataFrame(cells, columns=range(len(header)), dtype=str)
    used = [c for c, name in enumerate(header) if name or not _is_counter(raw[c])]
    stripped = raw[used].apply(lambda column: column.map(strip))
    names = [header[c] or f"Unnamed: {c}" for c in used]
    _refuse_twice(source, names)
    notes = [_merged(source, names[i], raw[c], stripped[c]) for i, c in enumerate(used)]
    return UserTable(
        source,
        stripped.set_axis(names, axis=1),
        tuple(line for line, _ in rows),
        separator,
        tuple(note for note in notes if note),
    )


def strip(text: str) -> str:
    """`text` without white space, control characters and characters without width at its ends.

    Examples
    --------
    >>> strip("P01\\u00a0"), strip("\\ufeffP 1\\t")
    ('P01', 'P 1')
    """
    return OUTER_SPACE.sub("", text)


def numbers(table: UserTable, columns: list[str]) -> npt.NDArray[np.float64]:
    """Columns of numbers, shape (n_rows, n_columns); `0,85` is 0.85 if commas do not separate cells.

    Raises
    ------
    DataError
        A cell is not a number; the message names its column and line.
    """
    values = np.empty((len(table.frame), len(columns)))
    for i, name in enumerate(columns):
        for row, cell in enumerate(table.frame[name]):
            values[row, i] = _number(table, name, row, cell)
    return values


def names_of(text: str) -> tuple[str, ...]:
    """The names in a list: separated by commas; a name with a comma is in double quotes.

    Examples
    --------
    >>> names_of('benign, "in situ, DCIS", invasive')
    ('benign', 'in situ, DCIS', 'invasive')

    Raises
    ------
    UsageError
        A quote is not closed.
    """
    try:
        cells = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise UsageError(
            f"Cannot read the list {text!r}: {error}",
            "names are separated by commas",
            "Put a name with a comma in double quotes: 'benign,\"in situ, DCIS\"'",
        ) from error
    return tuple(name for name in map(strip, cells) if name)


def as_list(names: Iterable[str]) -> str:
    """Names as a list that `names_of` can read.

    Examples
    --------
    >>> as_list(["benign", "in situ, DCIS"])
    'benign,"in situ, DCIS"'
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(names)
    return out.getvalue()


def _text(source: Path) -> str:
    refuse_pipe(source)
    try:
        if source.stat().st_size > MAX_TEXT_BYTES:
            raise DataError(
                f"'{source}' is larger than 64 MiB",
                "tables of at most 64 MiB are read",
                "Check the path",
            )
        content = source.read_bytes()
    except OSError as error:
        raise DataError(
            f"'{source}' cannot be read: {error.strerror or error}",
            "a table is needed",
            "Check the path",
        ) from error
    for start, kind in BINARY.items():
        if content.startswith(start):
            raise DataError(f"'{source}' is {kind}", "only text tables are read", SAVE_AS)
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"'{source}' is not encoded in UTF-8: line {line} holds the byte 0x{content[error.start]:02X}",
            "a UTF-8 table is needed",
            SAVE_AS,
        ) from error
    if "\0" in text:
        raise DataError(
            f"'{source}' is not a text file: it holds zero bytes",
            "only text tables are read",
            SAVE_AS,
        )
    return text


def _separated(text: str) -> tuple[str, str]:
    """The table without a first line `sep=;`, and its separator."""
    declared = re.match(r'"?sep=(.)"?[,;\t]*(?=\r?\n|\r)', text, re.IGNORECASE)
    if declared:
        return text[declared.end() :], declared[1]
    return text, max(SEPARATORS, key=lambda separator: _fit(text, separator))


def _fit(text: str, separator: str) -> tuple[bool, int]:
    """Whether the first rows have several cells, at most as many as the header; and its number of cells."""
    try:
        head = [row for _, row in islice(_rows(text, separator), 20)]
    except csv.Error:
        return False, 0
    if not head:
        return False, 0
    return all(1 < len(row) <= len(head[0]) for row in head), len(head[0])


def _records(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Header and rows, each with its line number; the header's cells are stripped."""
    records = list(_rows(text, separator))
    return [
        (line, [strip(c) for c in row] if i == 0 else row) for i, (line, row) in enumerate(records)
    ]


def _rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    for row in reader:
        while row and not strip(row[-1]):
            row.pop()
        if row:
            yield line, row
        line = reader.line_num + 1


def _refuse_long(source: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> None:
    long = [line for line, row in rows if len(row) > len(header)]
    if long:
        raise DataError(
            f"{len(long)} of {len(rows)} rows of '{source}' have more cells than the header, {len(header)} (lines {first_few(long)})",
            "each column needs a name in the header",
            "Name every column in the header, and put cells that contain the separator in double quotes",
        )


def _is_counter(column: pd.Series) -> bool:
    """Whether a column without a name is empty, or holds row numbers from 0 or 1 (pandas, R)."""
    cells = [strip(cell) for cell in column]
    return not any(cells) or any(
        cells == [str(i + first) for i in range(len(cells))] for first in (0, 1)
    )


def _refuse_twice(source: Path, names: list[str]) -> None:
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise DataError(
            f"'{source}' has several columns with the same name: {first_few(map(repr, twice))}",
            "column names must differ",
            "Rename or delete one of them",
        )


def _merged(source: Path, name: str, raw: pd.Series, stripped: pd.Series) -> str:
    """A note if values became equal because white space was removed."""
    if raw.nunique() == stripped.nunique():
        return ""
    changed = raw != stripped
    return (
        f"'{source.name}', column '{name}': white space around {int(changed.sum())} values was "
        f"removed ({first_few(map(ascii, raw[changed].unique()), 2)})."
    )


def _number(table: UserTable, name: str, row: int, cell: str) -> float:
    try:
        if table.separator != "," and _DECIMAL_COMMA.fullmatch(cell):
            return float(cell.replace(",", "."))
        return float(cell)
    except ValueError:
        raise DataError(
            f"'{table.path}' has '{cell}' in column '{name}', line {table.lines[row]}",
            "this column holds numbers",
            "Write numbers with a point, as in 0.85",
        ) from None
