"""A stratified jackknife over whole groups: left-out blocks, variance, degrees of freedom.

Every group (patient) is left out once, within the stratum of its most frequent class, so class
counts are treated as fixed. `experiments/benchmarks/coverage.py` simulates the coverage of the
intervals, beside a percentile bootstrap and a plain jackknife.

References
----------
Delete-one jackknife within strata: Wolter, K. M. (2007). Introduction to variance
estimation, ch. 4. Degrees of freedom: Satterthwaite, F. E. (1946). Biometrics Bulletin 2(6), 110-114.
Effective number of clusters of unequal size: Carter, A. V., Schnepel, K. T., & Steigerwald, D. G.
(2017). Review of Economics and Statistics 99(4), 698-709. Variance moderated between strata: Smyth,
G. K. (2004). Statistical Applications in Genetics and Molecular Biology 3(1), 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ensemble_kit.arrays import Array, Ints

# With more groups, blocks of groups are left out.
MAX_LEFT_OUT = 1000
# Numbers in one chunk of weights: 64 MB of float64.
CHUNK_WEIGHTS = 1 << 23
# Weight of the variance of all strata in each stratum, in degrees of freedom.
PRIOR_DF = 1.0


def strata_of(labels: Ints, groups: Ints, n_classes: int) -> Ints:
    """Stratum of each group, shape (n_groups,): its most frequent class.

    A stratum of one group has no variance, so its group is assigned to the largest stratum.
    """
    n_groups = int(groups.max()) + 1
    table = np.bincount(groups * n_classes + labels, minlength=n_groups * n_classes)
    stratum = table.reshape(n_groups, n_classes).argmax(axis=1)
    sizes = np.bincount(stratum, minlength=n_classes)
    return np.where(sizes[stratum] < 2, int(sizes.argmax()), stratum)


@dataclasses.dataclass(frozen=True, eq=False)
class Jackknife:
    """Blocks of groups that are left out together, and the stratum of each block.

    Parameters
    ----------
    strata : array of int, shape (n_groups,)
    blocks : tuple of arrays of int
        Group numbers; up to `MAX_LEFT_OUT` groups, each block is one group.
    block_strata : array of int, shape (n_blocks,)
    """

    strata: Ints
    blocks: tuple[Ints, ...]
    block_strata: Ints

    @staticmethod
    def of(labels: Ints, groups: Ints, n_classes: int) -> Jackknife:
        """The jackknife of samples with these labels and group numbers (from 0)."""
        strata = strata_of(labels, groups, n_classes)
        n_groups = len(strata)
        blocks: list[Ints] = []
        of_block: list[int] = []
        for s in np.unique(strata):
            some = np.flatnonzero(strata == s)
            n_blocks = len(some)
            if n_groups > MAX_LEFT_OUT:
                n_blocks = min(len(some), max(2, round(MAX_LEFT_OUT * len(some) / n_groups)))
            if len(some) > 1:
                blocks += [some[b::n_blocks] for b in range(n_blocks)]
                of_block += [int(s)] * n_blocks
        return Jackknife(strata, tuple(blocks), np.array(of_block, dtype=np.int64))

    def weights(self) -> Iterator[Array]:
        """Group weights with each block left out, and the rest of its stratum weighted up.

        Chunks of shape (n, n_groups), in total one row per block.
        """
        n_groups = len(self.strata)
        step = max(1, CHUNK_WEIGHTS // n_groups)
        sizes = np.bincount(self.strata)
        for start in range(0, len(self.blocks), step):
            part = self.blocks[start : start + step]
            weights = np.ones((len(part), n_groups))
            for row, block, s in zip(weights, part, self.block_strata[start:], strict=False):
                row[self.strata == s] = sizes[s] / (sizes[s] - len(block))
                row[block] = 0.0
            yield weights

    def left_out(self, of_weights: Callable[[Array], Mapping[str, Array]]) -> dict[str, Array]:
        """Statistics without each block, by name, each of shape (n_blocks, ...).

        Parameters
        ----------
        of_weights : callable
            Maps weights (n, n_groups) to statistics of shape (n, ...).
        """
        parts: dict[str, list[Array]] = {}
        for weights in self.weights():
            for name, values in of_weights(weights).items():
                parts.setdefault(name, []).append(values)
        return {name: np.concatenate(some) for name, some in parts.items()}

    def design(self, counted: Array, rows: Array | None = None) -> Design:
        """The design of a metric that is computed from these counts.

        Parameters
        ----------
        counted : array, shape (n_groups, n_parts)
            Rows of each group in each part of the metric: one column of all rows for a mean over
            rows, one column per class for a mean over classes.
        rows : array, shape (n_groups,), optional
            Rows of each group, if `counted` has other weights.
        """
        rows = counted.sum(axis=1) if rows is None else rows
        counted = counted[:, counted.sum(axis=0) > 0]
        share = (counted / counted.sum(axis=0)).mean(axis=1) if counted.size else None
        if share is None or not len(self.blocks):
            return Design(self.block_strata, np.zeros(0, np.int64), *[np.zeros(0)] * 4)
        blocks = np.array([share[block].sum() for block in self.blocks])
        strata = np.array(
            [s for s in np.unique(self.block_strata) if share[self.strata == s].any()]
        )
        return Design(
            self.block_strata,
            strata,
            np.array([share[self.strata == s].sum() for s in strata]),
            np.array([_effective(share[self.strata == s]) for s in strata]),
            np.array([_effective(blocks[self.block_strata == s]) for s in strata]),
            np.array([rows[self.strata == s].sum() for s in strata]),
        )


def _effective(sizes: Array) -> float:
    """Effective number of groups: of equal groups whose mean has the same variance."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """The strata of one metric: weight and effective number of groups of each.

    Parameters
    ----------
    block_strata : array of int, shape (n_blocks,)
    strata : array of int, shape (n_strata,)
        Strata that the metric uses.
    weight : array, shape (n_strata,)
        Share of each stratum in the metric; sums to 1.
    effective, effective_blocks : array, shape (n_strata,)
        Effective number of groups, and of left-out blocks.
    rows : array, shape (n_strata,)
    """

    block_strata: Ints
    strata: Ints
    weight: Array
    effective: Array
    effective_blocks: Array
    rows: Array

    @property
    def n_effective(self) -> float:
        return float(self.effective.sum())

    @property
    def variance_of_groups(self) -> float:
        """Variance, over value x (1 - value), if groups were right or wrong as a whole."""
        return float((self.weight**2 / self.effective).sum())

    @property
    def variance_of_rows(self) -> float:
        """The same if rows were right or wrong independently."""
        return float((self.weight**2 / self.rows).sum())

    def variance(self, left_out: Array) -> tuple[Array, Array]:
        """Variance and degrees of freedom of several statistics.

        Parameters
        ----------
        left_out : array, shape (n_blocks, n_statistics)
            Each statistic without each block; NaN if undefined.

        Returns
        -------
        variance, df : arrays, shape (n_statistics,)
            NaN if the statistic is undefined without some block.
        """
        per_stratum = []
        for s in self.strata:
            some = left_out[self.block_strata == s]
            n = len(some)
            per_stratum.append((n - 1) / n * ((some - some.mean(axis=0)) ** 2).sum(axis=0))
        scale = (self.effective / self.weight**2)[:, None]
        single = np.array(per_stratum) * scale  # (n_strata, n_statistics)
        df = np.maximum(self.effective_blocks - 1.0, 1e-3)[:, None]
        counts = np.array([(self.block_strata == s).sum() - 1 for s in self.strata]) * self.weight
        pooled = counts @ single / counts.sum()
        moderated = (PRIOR_DF * pooled + df * single) / (PRIOR_DF + df)
        parts = np.maximum(single, moderated) / scale
        total = parts.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            freedom = total**2 / (parts**2 / (df + PRIOR_DF)).sum(axis=0)
        return total, np.where(total > 0, np.maximum(freedom, 1.0), self._fewest_df())

    def _fewest_df(self) -> float:
        parts = self.weight**2 / self.effective
        return max(float(parts.sum() ** 2 / (parts**2 / self.effective_blocks).sum()), 1.0)
