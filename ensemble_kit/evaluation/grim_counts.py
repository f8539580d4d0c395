"""Which counts give a printed accuracy: a count rounded or truncated, padded digits, means of runs or folds.

Each explanation has the share of all values that it could explain.
"""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np

MOST_RUNS = 10
# An explanation that fits more than this share of all values is not informative.
INFORMATIVE = 0.9
# The search over folds takes time and memory in proportion to the samples.
MOST_IN_FOLDS = 100_000


@dataclasses.dataclass(frozen=True)
class Printed:
    """An accuracy as it was printed.

    Parameters
    ----------
    value, unit : Decimal
        The accuracy in [0, 1], and one unit of its last digit.
    zeros : int
        Number of zeros at the end that may be padding.
    """

    value: Decimal
    unit: Decimal
    zeros: int


@dataclasses.dataclass(frozen=True)
class Way:
    """One explanation of a printed accuracy.

    Parameters
    ----------
    fewest, most : int
        All counts in this range give the accuracy. For folds: one count.
    of : int
        Number of samples behind the count, over all runs.
    how : str
        E.g. "truncated", "the mean of 3 runs of 156, rounded".
    runs, folds : int
        Number of runs or folds that are averaged.
    share : float
        Share of all values with these digits that this explanation fits.
    """

    fewest: int
    most: int
    of: int
    how: str
    runs: int = 1
    folds: int = 1
    share: float = 1.0

    def __str__(self) -> str:
        count = f"{self.fewest} of {self.of}"
        if self.fewest < self.most:
            count = f"{self.fewest} to {self.most} of {self.of}"
        return f"{count}{', ' if self.runs == self.folds == 1 else ': '}{self.how}"


def single_counts(printed: Printed, n: int) -> tuple[Way, ...]:
    """Return the counts out of `n` that give the accuracy, rounded or truncated to its digits."""
    share = _share(n, printed.unit)
    return tuple(
        Way(*counts, n, how, share=share) for how, counts in _given(printed.value, printed.unit, n)
    )


def weaker_ways(printed: Printed, n: int) -> tuple[tuple[Way, ...], tuple[str, ...]]:
    """Return other explanations than a single count, and sentences on means that are not listed."""
    runs, too_many_runs = _runs(printed, n)
    folds, too_many_folds = _folds(printed, n)
    return (*_padded(printed, n), *runs, *folds), (*too_many_runs, *too_many_folds)


def _runs(printed: Printed, n: int) -> tuple[list[Way], list[str]]:
    ways: dict[Fraction, Way] = {}
    for runs in range(2, MOST_RUNS + 1):
        share = _share(runs * n, printed.unit)
        if share > INFORMATIVE:
            return [*ways.values()], [
                f"A mean of {runs} or more runs of {n} can give nearly any value: not listed."
            ]
        for how, counts in _given(printed.value, printed.unit, runs * n):
            mean = f"the mean of {runs} runs of {n}, {how}"
            # 4 runs give every mean that 2 runs give.
            ways.setdefault(
                Fraction(counts[0], runs * n), Way(*counts, runs * n, mean, runs, share=share)
            )
    return [*ways.values()], []


def _folds(printed: Printed, n: int) -> tuple[list[Way], list[str]]:
    # The mean over folds of equal size is a count out of n.
    unequal = [folds for folds in range(2, min(MOST_RUNS, n) + 1) if n % folds]
    if n > MOST_IN_FOLDS:
        return [], [f"Means of unequal folds are not searched above {MOST_IN_FOLDS} samples."]
    found = [way for folds in unequal if (way := _over_folds(printed, n, folds))]
    vague = ", ".join(str(way.folds) for way in found if way.share > INFORMATIVE)
    sentences = (
        [
            f"A mean of unequal folds can give nearly any value for these numbers of folds: {vague}. Not listed."
        ]
        if vague
        else []
    )
    return [way for way in found if way.share <= INFORMATIVE], sentences


def _share(of: int, unit: Decimal) -> float:
    return float(min(of * unit, Decimal(1)))


def _ends(value: Decimal, unit: Decimal) -> dict[str, tuple[Decimal, Decimal, bool]]:
    """Return the range of accuracies behind a value, and whether its upper end is included.

    A tie may be rounded up or down.
    """
    half = unit / 2
    return {
        "rounded": (value - half, value + half, True),
        "truncated": (value, value + unit, False),
    }


def _within(ends: tuple[Decimal, Decimal, bool], of: int) -> tuple[int, int]:
    low, high, closed = ends
    most = math.floor(of * high) if closed else math.ceil(of * high) - 1
    return max(math.ceil(of * low), 0), min(most, of)


def _given(value: Decimal, unit: Decimal, of: int) -> list[tuple[str, tuple[int, int]]]:
    """Return the counts that are rounded to the value, and the counts that are truncated to it."""
    found = {how: _within(ends, of) for how, ends in _ends(value, unit).items()}
    if found["rounded"] == found["truncated"]:
        found = {"rounded or truncated": found["rounded"]}
    return [(how, counts) for how, counts in found.items() if counts[0] <= counts[1]]


def _padded(printed: Printed, n: int) -> list[Way]:
    """Return the counts that give the accuracy without its last zeros, as few zeros as possible."""
    for zeros in range(1, printed.zeros + 1):
        unit = printed.unit.scaleb(zeros)
        share = _share(n, unit) / 10**zeros
        short = printed.value.quantize(unit)
        given = _given(printed.value, unit, n)
        if given:
            return [
                Way(*counts, n, f"{how} to {short} and padded with zeros", share=share)
                for how, counts in given
            ]
    return []


def _over_folds(printed: Printed, n: int, folds: int) -> Way | None:
    """Return the most even count whose mean over folds of `size` and `size + 1` samples fits."""
    size, larger = divmod(n, folds)
    of = folds * size * (size + 1)
    in_small = (folds - larger) * size
    window = (
        max(printed.value - Decimal(1) / n, Decimal(0)),
        min(printed.value + Decimal(1) / n, Decimal(1)),
    )
    # Mean accuracy * of = small * (size + 1) + large * size, over all splits of right predictions.
    small = np.arange(in_small + 1)
    first = -((small * (size + 1) - math.ceil(of * window[0])) // size)
    reach = math.ceil(of * (window[1] - window[0]) / size) + 1
    large = first[:, None] + np.arange(reach)
    sums = small[:, None] * (size + 1) + large * size
    real = (large >= 0) & (large <= n - in_small) & (sums <= math.floor(of * window[1]))
    values = np.unique(sums[real] // max(float(of * printed.unit), 1.0)).size
    share = min(float(values * printed.unit / (window[1] - window[0])), 1.0)
    for how, ends in _ends(printed.value, printed.unit).items():
        low, high = _within(ends, of)
        rows, columns = np.nonzero(real & (sums >= low) & (sums <= high))
        if rows.size:
            right = rows + large[rows, columns]
            best = int(right[np.abs(rows * n - right * in_small).argmin()])
            mean = f"the mean of {folds} folds of {size} or {size + 1}, {how}"
            return Way(best, best, n, mean, folds=folds, share=share)
    return None
