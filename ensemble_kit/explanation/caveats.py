"""What must be said of maps: few cells, or a method without a derivative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensemble_kit.explanation.panes import TITLES

# A map with fewer cells per side says little about places.
FEW_CELLS = 7


def map_caveats(
    method: str, cells: Mapping[str, Sequence[int]], replaced: Sequence[bool]
) -> list[str]:
    """The caveats of some images, as sentences.

    Parameters
    ----------
    method : str
        One of `methods.METHODS`.
    cells, replaced : mapping of member to (rows, columns), sequence of bool
        As of `Explanation`.
    """
    sentences = []
    few = [f"{m} {r} x {c}" for m, (r, c) in cells.items() if min(r, c) < FEW_CELLS]
    if few:
        sentences.append(
            f"{TITLES[method]} has few cells here ({', '.join(few)}), so it says little about places. "
            "Maps of gradientshap are finer, and so are those of members with a larger image size."
        )
    if n_replaced := sum(map(bool, replaced)):
        sentences.append(
            f"The method has no derivative on {n_replaced} of {len(replaced)} images: there the "
            "ensemble's map has equal weights for all members."
        )
    return sentences
