"""Checks of logits and labels, and softmax.

Axis 0 is always samples; logits are `(n_samples, n_members, n_classes)`.
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
    """`logits` as a float array with three axes.

    Parameters
    ----------
    logits : array-like of shape (n_samples, n_members, n_classes)
        Scores before the softmax. `-inf` is allowed (probability 0); `nan` and `+inf` are not.
    allow_missing : bool
        Accept (sample, member) rows that are all NaN: not predicted.

    Raises
    ------
    DataError
        The number of axes is not three, there is no sample, no member or only one class, or values
        are not logits.

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
            f"Logits have the shape {array.shape}",
            "they need three axes (n_samples, n_members, n_classes)",
            "Stack the members on axis 1: numpy.stack(list_of_2d_logits, axis=1)",
        )
    if array.shape[1] < 1 or array.shape[2] < 2:
        raise DataError(
            f"Logits have the shape {array.shape}",
            "an ensemble needs at least one sample, one member and two classes",
            "Check that the last axis holds the classes",
        )
    _refuse_non_logits(array, allow_missing)
    return array


def _refuse_non_logits(array: Array, allow_missing: bool) -> None:
    # One sum first: it is NaN or +inf only if something may be wrong.
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
            f"{wrong.sum()} of {wrong.size} (sample, member) rows of the logits hold NaN or +inf: {where}",
            "logits are finite numbers, or -inf for a probability of 0",
            "Predict the missing rows, or leave those samples or members out",
        )


def check_labels(labels: npt.ArrayLike, n_samples: int, n_classes: int) -> npt.NDArray[np.int64]:
    """`labels` as int64 class indices of shape `(n_samples,)`.

    Raises
    ------
    DataError
        The length is wrong, the dtype is not an integer, or an index is outside `0 .. n_classes - 1`.
    """
    array = np.asarray(labels)
    if array.shape != (n_samples,):
        raise DataError(
            f"Labels have the shape {array.shape} for {n_samples} samples",
            "each sample needs one label",
            "Join labels and logits by sample id first",
        )
    if array.dtype.kind not in "iub":
        raise DataError(
            f"Labels have the dtype {array.dtype}",
            "labels are integer class indices",
            "Map class names to their index in class_names",
        )
    if n_samples and (array.min() < 0 or array.max() >= n_classes):
        raise DataError(
            f"Labels are between {array.min()} and {array.max()}",
            f"with {n_classes} classes they must be between 0 and {n_classes - 1}",
            "Check that labels and logits use the same class_names",
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
    """A read-only view of `array` (a copy if the dtype differs)."""
    view = np.asarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view
