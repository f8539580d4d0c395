"""The arrays that travel right of the predictions store, and the checks at every door.

Axis 0 is always samples; logits are `(n_samples, n_members, n_classes)`. Knows no files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError, first_few

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def group_numbers(groups: npt.ArrayLike) -> Ints:
    """Groups of any kind as `0 .. n_groups - 1`, shape (n_samples,).

    Examples
    --------
    >>> group_numbers(["b", "a", "b"]).tolist()
    [1, 0, 1]
    """
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def check_logits(logits: npt.ArrayLike, *, allow_missing: bool = False) -> Array:
    """`logits` as a floating array of three axes, or an error that says what is wrong.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_members, n_classes)
        Scores before the softmax. `-inf` is a legal logit (probability 0), `nan` and `+inf` never.
    allow_missing : bool
        Accept (sample, member) rows that are NaN throughout: not predicted.

    Raises
    ------
    DataError
        Wrong number of axes, no sample, no member, fewer than two classes, or values that are
        no logits.

    Examples
    --------
    >>> check_logits([[[0.0, 1.0]]]).shape
    (1, 1, 2)
    """
    array = np.asarray(logits)
    if array.dtype.kind != "f":
        array = array.astype(np.float32)
    if array.ndim != 3:
        raise DataError(
            "Logits have three axes (n_samples, n_members, n_classes)",
            f"got shape {array.shape}",
            "Stack the members on axis 1: numpy.stack(list_of_2d_logits, axis=1)",
        )
    if array.shape[1] < 1 or array.shape[2] < 2:
        raise DataError(
            "An ensemble needs at least one member and two classes",
            f"got shape {array.shape}",
            "Check that the last axis holds the classes",
        )
    _refuse_non_logits(array, allow_missing)
    return array


def _refuse_non_logits(array: Array, allow_missing: bool) -> None:
    # One reduction first: sums are NaN or +inf only where something may be wrong.
    with np.errstate(all="ignore"):
        clean = bool(np.isfinite(array.sum(dtype=np.float64)))
    if clean:
        return
    bad: Array = np.isnan(array) | np.isposinf(array)
    missing = np.asarray(np.isnan(array).all(axis=2))
    dead = np.isneginf(array).all(axis=2)
    wrong = (bad & ~missing[:, :, None]).any(axis=2) | dead
    if not allow_missing:
        wrong = wrong | missing
    if wrong.any():
        rows, members = np.nonzero(wrong)
        where = first_few([f"({i}, {m})" for i, m in zip(rows, members, strict=True)])
        raise DataError(
            "Logits must be numbers: NaN has no class",
            f"{wrong.sum()} of {wrong.size} (sample, member) rows are not, at {where}",
            "Predict the missing rows, or leave those samples or members out",
        )


def check_labels(labels: npt.ArrayLike, n_samples: int, n_classes: int) -> npt.NDArray[np.int64]:
    """`labels` as int64 class indices of shape `(n_samples,)`.

    Raises
    ------
    DataError
        Another length, another dtype than integers, or an index outside `0 .. n_classes - 1`.
    """
    array = np.asarray(labels)
    if array.shape != (n_samples,):
        raise DataError(
            "There is one label per sample",
            f"got {array.shape} labels for {n_samples} samples",
            "Join labels and logits by sample id first",
        )
    if array.dtype.kind not in "iub":
        raise DataError(
            "Labels are class indices",
            f"got dtype {array.dtype}",
            "Map class names to their index in class_names",
        )
    if n_samples and (array.min() < 0 or array.max() >= n_classes):
        raise DataError(
            f"Labels lie in 0 .. {n_classes - 1}",
            f"got {array.min()} .. {array.max()}",
            "Check that labels and logits share one class_names",
        )
    return array.astype(np.int64)


def log_softmax(logits: Array) -> Array:
    """Logarithms of the class probabilities over the last axis; float64, same shape."""
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    out: Array = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return out


def softmax(logits: Array) -> Array:
    """Class probabilities over the last axis; float64, same shape, rows sum to 1.

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """
    return np.asarray(np.exp(log_softmax(logits)))


def frozen(array: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Array:
    """A read-only view (or copy, where the dtype differs) of `array`."""
    view = np.asarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view
