"""The inner loops of the rules: softmax-and-average, and vote counting, chunk by chunk.

Chunks are class-major, because a softmax over a last axis of 2 to 10 classes is slow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.parallel import cores

# Elements of one chunk: small enough to stay in a core's cache.
CHUNK_ELEMENTS = 1 << 16
# Tables of at least this size are split between a few threads (numpy releases the GIL).
THREADED_ELEMENTS = 1 << 21
MAX_THREADS = 4


def chunks(n_samples: int, n_members: int, n_classes: int) -> Iterator[slice]:
    """Row slices whose (rows, members, classes) block fits the cache."""
    step = max(16, CHUNK_ELEMENTS // (n_members * n_classes))
    for start in range(0, n_samples, step):
        yield slice(start, min(start + step, n_samples))


def class_major(block: Array, buffer: Array) -> Array:
    """`block` (rows, members, classes) copied into `buffer` as (classes, members, rows)."""
    view = buffer[:, :, : len(block)]
    np.copyto(view, block.transpose(2, 1, 0))
    return view


def _buffer(logits: Array, dtype: npt.DTypeLike) -> Array:
    n_samples, n_members, n_classes = logits.shape
    step = max(16, CHUNK_ELEMENTS // (n_members * n_classes))
    return np.empty((n_classes, n_members, min(step, max(n_samples, 1))), dtype=dtype)


def _in_threads(kernel: Callable[[Array, Array], None], logits: Array, out: Array) -> Array:
    """`out`, filled by `kernel` in contiguous parts of the rows, one part per thread."""
    n_threads = _n_threads()
    if logits.size < THREADED_ELEMENTS or n_threads < 2:
        kernel(logits, out)
        return out
    # Parts take milliseconds: joblib's threads take 6 % longer here.
    from concurrent.futures import ThreadPoolExecutor

    step = -(-len(logits) // n_threads)
    parts = [slice(i, i + step) for i in range(0, len(logits), step)]
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(lambda rows: kernel(logits[rows], out[rows]), parts))
    return out


def _n_threads() -> int:
    requested = os.environ.get("OMP_NUM_THREADS", "")
    return min(MAX_THREADS, cores(), *([int(requested)] if requested.isdecimal() else []))


def softmax_in_place(z: Array) -> Array:
    """Class probabilities over axis 0 of a class-major block, written into it."""
    z -= z.max(axis=0)
    np.exp(z, out=z)
    z /= z.sum(axis=0)
    return z


def mean_softmax(logits: Array, out: Array | None = None) -> Array:
    """The members' mean probability, shape (n_samples, n_classes), at least in float32.

    Memory beyond `out` is one chunk per thread, so a memory map of any size can be averaged.

    Examples
    --------
    >>> mean_softmax(np.zeros((1, 3, 2), dtype=np.float32))
    array([[0.5, 0.5]], dtype=float32)
    """
    if out is None:
        out = np.empty((len(logits), logits.shape[2]), dtype=_at_least_single(logits))
    return _in_threads(_mean_softmax, logits, out)


def _mean_softmax(logits: Array, out: Array) -> None:
    buffer = _buffer(logits, out.dtype)
    for rows in chunks(*logits.shape):
        z = softmax_in_place(class_major(logits[rows], buffer))
        total = z.sum(axis=1)  # (n_classes, rows)
        total *= 1.0 / logits.shape[1]
        out[rows] = total.T


def mean_of_logits(logits: Array) -> Array:
    """The members' mean logit, shape (n_samples, n_classes), at least in float32."""
    out = np.empty((len(logits), logits.shape[2]), dtype=_at_least_single(logits))
    for rows in chunks(*logits.shape):
        out[rows] = logits[rows].mean(axis=1, dtype=out.dtype)
    return out


def _at_least_single(logits: Array) -> np.dtype[Any]:
    return np.promote_types(logits.dtype, np.float32)


def vote_counts(logits: Array) -> Array:
    """Votes per class, shape (n_samples, n_classes), float32.

    A member with several equal highest logits gives each of these classes an equal share of its vote.

    Examples
    --------
    >>> vote_counts(np.array([[[2.0, 1.0], [0.0, 3.0], [1.0, 1.0]]]))
    array([[1.5, 1.5]], dtype=float32)
    """
    out = np.empty((len(logits), logits.shape[2]), dtype=np.float32)
    return _in_threads(_vote_counts, logits, out)


def _vote_counts(logits: Array, out: Array) -> None:
    n_members = logits.shape[1]
    buffer = _buffer(logits, logits.dtype)
    wide = np.uint8 if n_members < 256 else np.int32
    for rows in chunks(*logits.shape):
        z = class_major(logits[rows], buffer)
        top = z == z.max(axis=0)
        votes = np.add.reduce(top, axis=1, dtype=wide)  # (n_classes, rows)
        out[rows] = votes.T
        undecided = np.add.reduce(votes, axis=0, dtype=np.int64) > n_members
        if undecided.any():
            share = top[:, :, undecided] / top[:, :, undecided].sum(axis=0)
            out[rows.start + np.flatnonzero(undecided)] = share.sum(axis=1).T
