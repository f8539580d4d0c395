"""The loss of a mean of members if one more joins: fast, for losses that need little.

Log loss needs each member's probability of the true class only, accuracy only the samples whose
margin one more member can turn. Picks nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array

Ints = npt.NDArray[np.int64]
SMALLEST_PROBA = 1e-15
# So many factors of at least 1e-15 still multiply to a normal number.
FACTORS = 16
BLOCK_COLUMNS = 1024
BLOCK_ELEMENTS = 1 << 16
NEVER = 1 << 40


class LogLoss:
    """Mean log loss of the picks' mean, if one more member joins.

    Logarithms are taken of products of 16 probabilities, so that the step is adds and multiplies.

    Parameters
    ----------
    of_truth : array, shape (n_members, n_samples)
        Each member's probability of each sample's true class.
    """

    def __init__(self, of_truth: Array) -> None:
        n_members, self.n_samples = of_truth.shape[0], of_truth.shape[1]
        n_columns = -(-self.n_samples // FACTORS)
        padded = np.ones((n_members, FACTORS * n_columns))  # a 1 keeps its logarithm known
        padded[:, : self.n_samples] = of_truth
        np.maximum(padded, SMALLEST_PROBA, out=padded)
        n_padding = FACTORS * n_columns - self.n_samples
        self._padding = n_padding
        blocks = [
            slice(i, min(i + BLOCK_COLUMNS, n_columns)) for i in range(0, n_columns, BLOCK_COLUMNS)
        ]
        shaped = padded.reshape(n_members, FACTORS, n_columns)
        self._blocks = [np.ascontiguousarray(shaped[:, :, block]) for block in blocks]
        self._sums = [np.zeros(block.shape[1:]) for block in self._blocks]
        self._n_picked = 0

    def with_each(self) -> Array:
        """The loss after adding each member, shape (n_members,)."""
        n_members = len(self._blocks[0])
        total = np.zeros(n_members)
        for block, picked in zip(self._blocks, self._sums, strict=True):
            mixed = np.empty_like(picked)
            products = np.empty((n_members, len(picked[0])))
            for m in range(n_members):
                np.add(picked, block[m], out=mixed)
                np.multiply.reduce(mixed, axis=0, out=products[m])
            np.log(products, out=products)
            total += products.sum(axis=1)
        size = np.log(self._n_picked + 1.0)
        # Padding holds sums of ones; the mean divides every factor by the number of picks.
        return size - (total - self._padding * size) / self.n_samples

    def add(self, member: int) -> None:
        """Pick a member."""
        self._n_picked += 1
        for block, picked in zip(self._blocks, self._sums, strict=True):
            picked += block[member]


class ErrorRate:
    """Weighted share of errors of the picks' mean, if one more member joins.

    What one pick can gain a class on a sample's leader is bounded by the members themselves. A
    sample whose leader is further ahead cannot turn, and is not looked at for as many picks as
    that takes; exact, and most samples are soon left alone.

    Parameters
    ----------
    proba : array, shape (n_members, n_samples, n_classes)
    labels : array of int, shape (n_samples,)
    weights : array, shape (n_samples,), optional
        Sum to 1; equal by default (then the loss is one minus accuracy).
    """

    def __init__(self, proba: Array, labels: Ints, weights: Array | None = None) -> None:
        n_samples = proba.shape[1]
        # Members last: a sample's numbers lie together, and every step runs along members.
        self._proba = np.ascontiguousarray(proba.transpose(1, 2, 0), dtype=np.float64)
        self._by_member = proba
        self._sum = np.zeros(self._proba.shape[:2])
        self._labels = labels
        self._weights = np.full(n_samples, 1.0 / n_samples) if weights is None else weights
        self._look_again = np.zeros(n_samples, dtype=np.int64)
        self._wrong = np.ones(n_samples, dtype=bool)
        self._leading = np.full(n_samples, -1)
        self._gain = np.empty(self._proba.shape[:2])
        self._n_picked = 0

    def _due(self, elements: int) -> list[Ints]:
        """Samples that the next pick may turn, in blocks that fit the cache."""
        due = np.flatnonzero(self._look_again <= self._n_picked)
        step = max(1, BLOCK_ELEMENTS // elements)
        return [due[i : i + step] for i in range(0, len(due), step)]

    def with_each(self) -> Array:
        """The loss after adding each member, shape (n_members,)."""
        losses = np.full(self._proba.shape[2], float(self._weights @ self._wrong))
        for rows in self._due(self._proba[0].size):
            losses += self._weights[rows] @ self._wrong_with_each(rows)
            losses -= float(self._weights[rows] @ self._wrong[rows])
        return losses

    def _wrong_with_each(self, rows: Ints) -> Array:
        """Whether each sample is wrong after adding each member, shape (n_rows, n_members)."""
        proba, at, labels = self._proba[rows], np.arange(len(rows)), self._labels[rows]
        mixed = proba + self._sum[rows][:, :, None]  # (n_rows, n_classes, n_members)
        own = mixed[at, labels]
        mixed[at, labels] = -np.inf
        rival = mixed[:, 0].copy()
        for c in range(1, mixed.shape[1]):  # seven times faster than mixed.max(axis=1)
            np.maximum(rival, mixed[:, c], out=rival)
        wrong: Array = rival > own
        i, m = np.nonzero(rival == own)
        if len(i):  # level: the first of the two classes leads
            wrong[i, m] = (mixed[i, :, m] == own[i, m][:, None]).argmax(axis=1) < labels[i]
        return wrong

    def add(self, member: int) -> None:
        """Pick a member, and put off the samples that it left too far ahead to turn."""
        self._n_picked += 1
        self._sum += self._by_member[member]
        for rows in self._due(len(self._sum[0])):
            sums, at = self._sum[rows], np.arange(len(rows))
            leading, labels = sums.argmax(axis=1), self._labels[rows]
            self._note_leaders(rows, leading)
            self._wrong[rows] = leading != labels
            behind = sums[at, leading][:, None] - sums  # (n_rows, n_classes)
            with np.errstate(divide="ignore", invalid="ignore"):
                # Behind by 2.3 and gaining at most 1 a pick: the third pick from now may turn it.
                picks = np.where(
                    self._gain[rows] > 0, np.ceil(behind / self._gain[rows] - 1e-9), NEVER
                )
            picks = np.where(behind <= 0, 1, picks)
            picks[at, leading] = NEVER
            # Where the leader is wrong, only the true class can change the count.
            soonest = np.where(self._wrong[rows], picks[at, labels], picks.min(axis=1))
            self._look_again[rows] = self._n_picked + np.clip(soonest - 1, 0, NEVER).astype(
                np.int64
            )

    def _note_leaders(self, rows: Ints, leading: Ints) -> None:
        """Keep, where the leader is new, the most that one pick can gain each class on it."""
        new = leading != self._leading[rows]
        some = rows[new]
        proba = self._proba[some]
        leader = proba[np.arange(len(some)), leading[new]]
        self._gain[some] = (proba - leader[:, None]).max(axis=2)
        self._leading[some] = leading[new]


class AnyLoss:
    """Any loss of a mixture, evaluated in full for each member: slow and general.

    Parameters
    ----------
    proba : array, shape (n_members, n_samples, n_classes)
    loss : callable
        Of a mixture (n_samples, n_classes); lower is better.
    """

    def __init__(self, proba: Array, loss: Callable[[Array], float]) -> None:
        self._proba, self._loss = proba, loss
        self._sum, self._n_picked = np.zeros(proba.shape[1:]), 0

    def with_each(self) -> Array:
        """The loss after adding each member, shape (n_members,)."""
        size = self._n_picked + 1
        return np.array([self._loss((self._sum + one) / size) for one in self._proba])

    def add(self, member: int) -> None:
        """Pick a member."""
        self._n_picked += 1
        self._sum = self._sum + self._proba[member]
