"""Caveats of maps: a low resolution, or a combiner without a derivative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensemble_kit.explanation.panes import TITLES

# A map with fewer cells per side hardly localizes evidence.
FEW_CELLS = 7


def map_caveats(
    method: str, cells: Mapping[str, Sequence[int]], replaced: Sequence[bool]
) -> list[str]:
    """The caveats of the maps of some images, as sentences.

    Parameters
    ----------
    method : str
        One of `methods.METHODS`.
    cells, replaced : mapping of member to (rows, columns), sequence of bool
        See `Explanation`.
    """
    sentences = []
    few = [f"{m} {r} x {c}" for m, (r, c) in cells.items() if min(r, c) < FEW_CELLS]
    if few:
        sentences.append(
            f"{TITLES[method]} maps have a low resolution here ({', '.join(few)} cells). "
            "For finer maps, use gradientshap, or members with a larger image size."
        )
    if n_replaced := sum(map(bool, replaced)):
        sentences.append(
            f"The method has no derivative for {n_replaced} of {len(replaced)} images. Their "
            "ensemble maps give all members equal weights."
        )
    return sentences
