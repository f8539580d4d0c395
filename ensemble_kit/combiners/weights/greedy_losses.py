"""The loss of a mean of members after adding each member, with fast paths for common losses.

Log loss needs only each member's probability of the true class. Accuracy needs only the samples
whose predicted class can change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints

SMALLEST_PROBA = 1e-15
# The product of this many factors of at least 1e-15 is a normal number.
FACTORS = 16
BLOCK_COLUMNS = 1024
BLOCK_ELEMENTS = 1 << 16
NEVER = 1 << 40
# Rounding error of a lead after one pick, and of a number of picks.
DRIFT = 1e-12
SLACK = 1e-9


class LogLoss:
    """Mean log loss of the mean of the picks, after adding each member.

    The logarithm is taken of products of 16 probabilities, which is faster.

    Parameters
    ----------
    of_truth : array, shape (n_members, n_samples)
        Each member's probability of each sample's true class.
    """

    def __init__(self, of_truth: Array) -> None:
        n_members, self.n_samples = of_truth.shape[0], of_truth.shape[1]
        n_columns = -(-self.n_samples // FACTORS)
        padded = np.ones((n_members, FACTORS * n_columns))  # padding of 1, whose logarithm is known
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
        # Padding has sums of ones; the mean divides every factor by the number of picks.
        return size - (total - self._padding * size) / self.n_samples

    def add(self, member: int) -> None:
        """Pick a member."""
        self._n_picked += 1
        for block, picked in zip(self._blocks, self._sums, strict=True):
            picked += block[member]


class ErrorRate:
    """Weighted share of errors of the mean of the picks, after adding each member.

    A sample is right if its true class leads every other class (rival). The members bound how much
    one pick can change each lead. A sample is therefore skipped for as many picks as its leads
    allow, and then compared only with the rivals that may overtake. The result is exact.

    Parameters
    ----------
    proba : array, shape (n_members, n_samples, n_classes)
    labels : array of int, shape (n_samples,)
    weights : array, shape (n_samples,), optional
        Sum to 1; equal by default (then the loss is one minus accuracy).
    """

    def __init__(self, proba: Array, labels: Ints, weights: Array | None = None) -> None:
        n_members, n_samples, n_classes = proba.shape
        # Members are the last axis: every step runs along members.
        self._proba = np.ascontiguousarray(proba.transpose(1, 2, 0), dtype=np.float64)
        self._by_member, self._labels = proba, labels
        # Equal weights are counted in whole samples, so that ties are exact.
        self._weights = np.ones(n_samples) if weights is None else weights
        self._unit = 1.0 / n_samples if weights is None else 1.0
        # 1 / the most that one pick can take from, or add to, the lead over each class.
        self._per_loss, self._per_gain = np.empty((2, n_samples, n_classes))
        self._total = np.zeros(n_members)
        step = max(1, BLOCK_ELEMENTS // self._proba[0].size)
        for start in range(0, n_samples, step):
            self._bound(slice(start, start + step))
        self._sum = np.zeros((n_samples, n_classes))
        self._look_again = np.zeros(n_samples, dtype=np.int64)
        self._wrong = np.ones(n_samples, dtype=bool)
        self._near: list[tuple[Ints, npt.NDArray[np.bool_]]] = []
        self._n_picked = 0

    def _bound(self, rows: slice) -> None:
        """Bounds of the change of each lead by one pick, and each member's own errors."""
        block = np.ascontiguousarray(self._proba[rows].transpose(1, 2, 0))
        labels, at = self._labels[rows], np.arange(block.shape[2])
        lead = block[labels, :, at].T - block  # (n_classes, n_members, n_rows)
        self._per_loss[rows] = (1 / (DRIFT - np.minimum(lead.min(axis=1), 0))).T
        self._per_gain[rows] = (1 / (DRIFT + np.maximum(lead.max(axis=1), 0))).T
        wrong = (lead < 0).any(axis=0)
        if np.count_nonzero(lead) < lead.size - wrong.size:  # a tie: the first class leads
            first = np.arange(len(lead))[:, None] < labels
            wrong |= ((lead == 0) & first[:, None]).any(axis=0)
        self._total += np.einsum("mi,i->m", wrong, self._weights[rows])

    def with_each(self) -> Array:
        """The loss after adding each member, shape (n_members,)."""
        if not self._n_picked:
            return self._total * self._unit
        # einsum, because BLAS would start its threads for a few microseconds of work.
        total = np.full(len(self._total), np.einsum("i,i->", self._weights, self._wrong))
        for rows, near in self._near:
            weights = self._weights[rows]
            total += np.einsum("i,im->m", weights, self._wrong_with_each(rows, near))
            total -= np.einsum("i,i->", weights, self._wrong[rows])
        return total * self._unit

    def _wrong_with_each(self, rows: Ints, near: npt.NDArray[np.bool_]) -> Array:
        """Whether each sample is wrong after adding each member, shape (n_rows, n_members).

        `near` (n_rows, n_classes) marks the rivals that may lead then, at least one per sample.
        """
        labels, (of_row, rivals) = self._labels[rows], np.nonzero(near)
        own = self._mixed(rows, labels)
        counts = np.bincount(of_row, minlength=len(rows))
        first = np.cumsum(counts) - counts
        wrong = np.zeros(own.shape, dtype=bool)
        for k in range(int(counts.max())):  # the k-th rival of each sample that has one
            at = np.flatnonzero(counts > k)
            classes, truth = rivals[first[at] + k], own.take(at, axis=0)
            mixed = self._mixed(rows[at], classes)
            leads = mixed > truth
            level = mixed == truth
            if level.any():  # the first of the two classes leads
                leads |= level & (classes < labels[at])[:, None]
            wrong[at] |= leads
        return wrong

    def _mixed(self, rows: Ints, classes: Ints) -> Array:
        """The sums of these samples' classes with each member, shape (n_rows, n_members)."""
        at = rows * self._sum.shape[1] + classes
        mixed = self._proba.reshape(-1, len(self._by_member)).take(at, axis=0)
        mixed += self._sum.ravel().take(at)[:, None]
        return mixed

    def add(self, member: int) -> None:
        """Pick a member, and update the samples whose predicted class may have changed."""
        self._n_picked += 1
        self._sum += self._by_member[member]
        due = np.flatnonzero(self._look_again <= self._n_picked)
        step = max(1, BLOCK_ELEMENTS // max(self._proba.shape[1:]))
        self._near = []
        for start in range(0, len(due), step):
            self._look(due[start : start + step])

    def _look(self, rows: Ints) -> None:
        """Update which samples are wrong, and after how many picks each may change."""
        labels, at = self._labels[rows], np.arange(len(rows))
        sums = np.ascontiguousarray(self._sum.take(rows, axis=0).T)  # (n_classes, n_rows)
        lead = sums[labels, at] - sums
        lead[labels, at] = np.inf
        wrong = (lead < 0).any(axis=0)  # ties are checked again at the next pick
        self._wrong[rows] = wrong
        # A lead of 2.3 that loses at most 1 per pick can be lost at the third pick from now.
        losing = lead * self._per_loss.take(rows, axis=0).T
        picks = losing.min(axis=0)
        behind = np.flatnonzero(wrong)
        # A wrong sample becomes right only if its true class overtakes every rival.
        picks[behind] = -(lead[:, behind] * self._per_gain[rows[behind]].T).min(axis=0)
        later = np.ceil(picks - SLACK).clip(1, NEVER).astype(np.int64) - 1
        self._look_again[rows] = self._n_picked + later
        soon = np.flatnonzero(later == 0)
        if len(soon):
            self._near.append((rows[soon], (losing[:, soon] <= 1 + SLACK).T))


class AnyLoss:
    """Any loss of mean probabilities, computed in full for each member: slow and general.

    Parameters
    ----------
    proba : array, shape (n_members, n_samples, n_classes)
    loss : callable
        Loss of mean probabilities (n_samples, n_classes); lower is better.
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
