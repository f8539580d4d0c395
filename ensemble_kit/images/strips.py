"""Strips of rows, to process large images with little extra memory."""

from __future__ import annotations

from collections.abc import Iterator

STRIP_PIXELS = 2**20


def strips(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that cover an image, each of about a megapixel.

    Examples
    --------
    >>> list(strips(3, 2**20))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))
