"""Text for the terminal: durations, aligned columns, safe characters."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, TextIO

import click

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """`text` without control characters, so that a file name cannot control the terminal."""
    return _CONTROL.sub("?", text)


def duration(seconds: float) -> str:
    """A duration in words.

    Examples
    --------
    >>> duration(0.42), duration(75), duration(4020)
    ('0.4 s', '1 min 15 s', '1 h 07 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Rows as aligned text columns; the columns in `right` are flush right.

    Examples
    --------
    >>> print(columns([("a", "1"), ("bcd", "22")], right=[1]))
    a     1
    bcd  22
    """
    rows = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def terminal_width(stream: TextIO) -> int | None:
    """The number of columns of the terminal; None if the stream is not a terminal."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrapped(text: str, width: int | None) -> str:
    """`text` in lines of at most `width` characters, broken between words; None: unchanged.

    Examples
    --------
    >>> print(wrapped("One fact, one sentence.", 12))
    One fact,
    one
    sentence.
    """
    if width is None:
        return text
    lines = [
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def print_text(text: str = "", *, err: bool = False) -> None:
    """Print text with safe characters, wrapped at the width of a terminal.

    Text with a command stays on one line, so that the command can be copied.
    """
    width = terminal_width(sys.stderr if err else sys.stdout)
    width = None if "ensemble-kit " in text else width
    click.echo(wrapped(printable(text), width), err=err)


def print_json(values: Any) -> None:
    """Print values as indented JSON; NaN is an error."""
    click.echo(json.dumps(values, indent=2, allow_nan=False))


def print_command(label: str, command: str, *, err: bool = False) -> None:
    """Print a command to copy on one line, also on a narrow terminal."""
    click.echo(printable(f"{label}: {command}"), err=err)
