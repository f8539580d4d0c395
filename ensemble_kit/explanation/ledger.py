"""The summary sentence of one image: the members' predictions and the overlap of their maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Bools
from ensemble_kit.errors import first_few
from ensemble_kit.explanation.explain import Explanation
from ensemble_kit.explanation.fuse import mean_overlap

Strs = npt.NDArray[np.str_]


def sentence(explanation: Explanation, i: int) -> str:
    """The summary of image `i`."""
    found = explanation.predictions
    votes, wanted = found.votes[i], str(explanation.class_names[i])
    names, maps = np.array(found.member_names), explanation.maps[i]
    with_it, filled = votes == wanted, maps.max(axis=(1, 2)) > 0
    sentences = [_votes(names, votes, with_it, wanted), *_overlaps(maps, with_it, filled, wanted)]
    if not filled.all() and len(names) > 1:
        sentences.append(
            f"No evidence for {wanted} in {first_few(names[~filled])}: the map is empty."
        )
    return " ".join(sentences)


def _votes(names: Strs, votes: Strs, with_it: Bools, wanted: str) -> str:
    n = len(votes)
    if n == 1:
        return f"{names[0]} predicts {votes[0]}."
    if with_it.all():
        return f"{'Both' if n == 2 else f'All {n}'} members predict {wanted}."
    pairs = zip(names[~with_it], votes[~with_it], strict=True)
    others = first_few((f"{name} predicts {vote}" for name, vote in pairs), 4)
    n_with = int(with_it.sum())
    return f"{n_with} of {n} members predict{'s' * (n_with == 1)} {wanted}; {others}."


def _overlaps(maps: Array, with_it: Bools, filled: Bools, wanted: str) -> list[str]:
    """Sentences on the overlap of the maps that are not empty."""
    ours, theirs = maps[with_it & filled], maps[~with_it & filled]
    if not with_it.any() or with_it.all():
        mean = mean_overlap(maps[filled])
        return (
            [f"Their maps for {wanted} overlap {mean:.2f} on average."] if np.isfinite(mean) else []
        )
    sentences = []
    if len(ours) and len(theirs):
        sentences.append(
            f"The maps of these two groups overlap {mean_overlap(ours, theirs):.2f} on average."
        )
    if len(ours) > 1:
        sentences.append(
            f"The maps of the members that predict {wanted} overlap {mean_overlap(ours):.2f} on average."
        )
    return sentences
