"""Tables for the terminal: aligned columns, in blocks that are not wider than the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from ensemble_kit.cli.output.text import columns, terminal_width

Rows = Sequence[Sequence[str]]
GAP = 2


def print_table(rows: Rows, n_text: int = 0) -> None:
    """Print rows with a header as aligned columns; the last `n_text` columns are text, flush left.

    On a terminal that is too narrow, the columns are printed in several blocks below each other.
    Each block begins with the first column.
    """
    n_numbers = len(rows[0]) - n_text
    for number, block in enumerate(blocks(rows, terminal_width(sys.stdout))):
        if number:
            click.echo()
        right = [at for at, column in enumerate(block) if 0 < column < n_numbers]
        click.echo(columns([[row[c] for c in block] for row in rows], right=right))


def blocks(rows: Rows, width: int | None) -> Iterator[list[int]]:
    """The columns of each block, so that no block is wider than `width`; None: all in one block.

    Examples
    --------
    >>> rows = [("method", "test", "accuracy"), ("vote", "0.750", "0.812")]
    >>> list(blocks(rows, None)), list(blocks(rows, 15))
    ([[0, 1, 2]], [[0, 1], [0, 2]])
    """
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    block, used = [0], widths[0]
    for column in range(1, len(widths)):
        needed = GAP + widths[column]
        if width is not None and len(block) > 1 and used + needed > width:
            yield block
            block, used = [0], widths[0]
        block.append(column)
        used += needed
    yield block
