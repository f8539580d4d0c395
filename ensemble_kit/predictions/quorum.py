"""Missing member predictions: an error, or, with a quorum, left out with a caveat."""

from __future__ import annotations

import dataclasses

import numpy as np

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.predictions.table import Predictions

SMALLEST_PROBA = 1e-12
REPLACEMENT_NOTE = (
    "If predictions of an image are missing, rules and the oracle use the other members. The "
    "weights of simplex and greedy are renormalised over the other members. Every other fitted "
    "method, and every fit, uses the mean probability of the other members in place of a missing "
    "prediction."
)


def with_quorum(table: Predictions, quorum: int) -> Predictions:
    """Accept missing predictions if every sample was predicted by at least `quorum` members.

    Parameters
    ----------
    table : Predictions
        May have NaN rows, which are not changed.
    quorum : int
        Minimum number of members per sample.

    Returns
    -------
    Predictions
        The table with caveats: how many predictions are missing, of which members, and how they
        are replaced.

    Raises
    ------
    UsageError
        The quorum is below 1 or above the number of members.
    DataError
        Some samples were predicted by fewer members.

    Examples
    --------
    >>> nan = [np.nan, np.nan]
    >>> table = Predictions.from_arrays({"a": [[0.0, 2.0]], "b": [[0.0, 2.0]], "c": [nan]}, [1])
    >>> with_quorum(table, 2).notes[0]
    'Quorum of 2: 1 of 3 out-of-fold predictions (image by member) are missing, of c.'
    """
    if not 1 <= quorum <= table.n_members:
        raise UsageError(
            f"Invalid quorum {quorum}",
            f"it must be between 1 and {table.n_members}, the number of members",
            "Use e.g. --quorum 2",
        )
    available = table.available
    short = available.sum(axis=1) < quorum
    if short.any():
        raise DataError(
            f"{short.sum()} of {len(table)} images were predicted by fewer than {quorum} members: "
            f"{first_few(table.sample_ids[short])}",
            f"the quorum needs {quorum} members per image",
            "Train the missing folds, or set a smaller quorum",
        )
    if available.all():
        return table
    gaps = [table.member_names[m] for m in np.flatnonzero((~available).any(axis=0))]
    part = "out-of-fold" if table.kind == "oof" else "test"
    note = (
        f"Quorum of {quorum}: {(~available).sum()} of {available.size} {part} predictions (image by "
        f"member) are missing, of {first_few(gaps)}."
    )
    return dataclasses.replace(table, quorum=quorum, notes=(*table.notes, note, REPLACEMENT_NOTE))


def complete_logits(table: Predictions) -> Array:
    """The logits; with a quorum, gaps are the log of the mean probability of the other members.

    Returns
    -------
    array, shape (n_samples, n_members, n_classes)
        Without a quorum, gaps are NaN.
    """
    if table.quorum is None:
        return table.logits
    available = table.available[:, :, None]
    proba = np.where(available, softmax(np.where(available, table.logits, 0.0)), 0.0)
    mean = proba.sum(axis=1) / available.sum(axis=1)  # (n_samples, n_classes)
    replacement = np.log(np.maximum(mean, SMALLEST_PROBA))[:, None]
    return np.where(available, table.logits, replacement).astype(np.float32)
