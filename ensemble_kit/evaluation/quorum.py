"""Members that lack some folds: refused, or, where a quorum is declared, stood in for and stamped.

A missing member's answer is the mean probability of the members present, so that the mean over all
is the mean over those present with renormalised weights. Combines nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ensemble_kit.arrays import softmax
from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.predictions.table import Predictions

SMALLEST_PROBA = 1e-12


def with_quorum(table: Predictions, quorum: int) -> Predictions:
    """`table` without gaps, if every sample was predicted by at least `quorum` members.

    Parameters
    ----------
    table : Predictions
        May have NaN rows.
    quorum : int

    Returns
    -------
    Predictions
        With a note of how many answers were stood in for, and of which members.

    Raises
    ------
    UsageError
        A quorum of none, or of more members than there are.
    DataError
        Samples predicted by fewer members.

    Examples
    --------
    >>> nan = [np.nan, np.nan]
    >>> table = Predictions.from_arrays({"a": [[0.0, 2.0]], "b": [[0.0, 2.0]], "c": [nan]}, [1])
    >>> with_quorum(table, 2).notes
    ('Quorum of 2: 1 of 3 (sample, member) answers are missing (c); the members present stand in.',)
    """
    if not 1 <= quorum <= table.n_members:
        raise UsageError(
            f"A quorum lies in 1 .. {table.n_members}, the number of members",
            f"got {quorum}",
            "Use e.g. --quorum 2",
        )
    there = table.available
    short = there.sum(axis=1) < quorum
    if short.any():
        raise DataError(
            f"Every sample needs answers of {quorum} members",
            f"{short.sum()} of {len(table)} have fewer: {first_few(table.sample_ids[short])}",
            "Train the missing folds, or declare a smaller quorum",
        )
    if there.all():
        return table
    proba = np.where(
        there[:, :, None], softmax(np.where(there[:, :, None], table.logits, 0.0)), 0.0
    )
    mean = proba.sum(axis=1) / there.sum(axis=1)[:, None]
    stand_in = np.log(np.maximum(mean, SMALLEST_PROBA))[:, None]
    gaps = [table.member_names[m] for m in np.flatnonzero((~there).any(axis=0))]
    note = (
        f"Quorum of {quorum}: {(~there).sum()} of {there.size} (sample, member) answers are missing "
        f"({first_few(gaps)}); the members present stand in."
    )
    logits = np.where(there[:, :, None], table.logits, stand_in)
    return dataclasses.replace(table, logits=logits, notes=(*table.notes, note))
