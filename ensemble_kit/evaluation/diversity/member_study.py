"""Diversity of the members of an ensemble, and the contribution of each to the plain mean.

Computed on out-of-fold rows, with intervals over whole groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.caveats import table_notes
from ensemble_kit.evaluation.diversity.shapley import (
    MAX_MEMBERS,
    added,
    left_out,
    means_of,
    shapley,
)
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.jackknife import Design
from ensemble_kit.evaluation.uncertainty.t_intervals import gains, interval_of
from ensemble_kit.metrics import metric
from ensemble_kit.metrics.diversity import ambiguity, kappa_error, pairwise
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions

# Sets of members that are scored at a time; limits memory.
CHUNK_SETS = 64
FOLDER = "diversity"


@dataclasses.dataclass(frozen=True, eq=False)
class MemberStudy:
    """Diversity of members, and the contribution of each.

    Parameters
    ----------
    pairs : DataFrame
        `a, b, disagreement, double_fault, q_statistic, error_correlation, kappa, mean_error`, the
        pairs with the most similar errors first.
    members : DataFrame
        `member, alone, left_out, added, shapley`; all but `added` with `_low` and `_high`. The last
        three are gains, positive if the member helps. The intervals of `left_out` and `shapley` are
        simultaneous for all members. `shapley` is NaN for more than 12 members.
    best : str
        The best single member; `added` is the gain of adding a member to it.
    decomposition : mapping
        Brier score of the mean: `members` minus `ambiguity` is `ensemble`.
    whole : Interval
        Metric of the mean of all members.
    protocol : Protocol
    n, n_groups : int
    group_kind : str
    notes : tuple of str
    """

    pairs: pd.DataFrame
    members: pd.DataFrame
    best: str
    decomposition: Mapping[str, float]
    whole: Interval
    protocol: Protocol
    n: int
    n_groups: int
    group_kind: str
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The member that adds least to the mean, and whether it helps."""
        least = self.members.loc[self.members["left_out"].idxmin()]
        name, gain = least["member"], least["left_out"]
        low, high = least["left_out_low"], least["left_out_high"]
        sign = 1.0 if metric(self.protocol.metric).higher_is_better else -1.0
        noun = self.protocol.metric.replace("_", " ")
        if np.isnan(low) and gain == 0 and self.protocol.intervals:
            return f"{name} is not shown to help: without it, the {noun} of the mean is the same."
        without = Interval(None if self.whole.value is None else self.whole.value - sign * gain)
        text = f"without it, the {noun} of the mean is {without} instead of {self.whole}"
        if np.isnan(low):
            return f"{name} adds least to the mean: {text} (gain by the member {gain:+.3f}, no interval)."
        over = (
            f"{self.protocol.level * 100:.0f} %, simultaneous for {len(self.members)} members, over "
            f"{self.n_groups} {self.group_kind}s, out-of-fold"
        )
        text += f" (gain by the member {gain:+.3f} [{low:+.3f}, {high:+.3f}]; {over})."
        if low > 0:
            return f"Every member helps. {name} adds least to the mean: {text}"
        if high < 0:
            return f"{name} makes the mean worse and should be removed: {text}"
        if not (self.members["left_out_low"] > 0).any():
            return f"No member is shown to help. {name} adds least to the mean: {text}"
        return f"{name} is not shown to help: {text}"


def study_members(oof: Predictions, protocol: Protocol | None = None) -> MemberStudy:
    """Pairwise diversity, the gain of averaging, and each member's contribution to the plain mean.

    Parameters
    ----------
    oof : Predictions
        Predictions of every member for every row.
    protocol : Protocol, optional

    Raises
    ------
    DataError
        Fewer than two members.
    UsageError
        The protocol's metric has no better direction.

    References
    ----------
    Kuncheva, L. I., & Whitaker, C. J. (2003). Measures of diversity in classifier ensembles.
    Machine Learning 51, 181-207. Rozemberczki, B., & Sarkar, R. (2021). The Shapley value of
    classifiers in ensemble games. CIKM.

    Examples
    --------
    >>> rng, labels = np.random.default_rng(0), np.arange(60) % 2
    >>> logits = {m: rng.normal(size=(60, 2)) + 2 * np.eye(2)[labels] for m in "ab"}
    >>> logits["noise"] = 5 * rng.normal(size=(60, 2))
    >>> table = Predictions.from_arrays(logits, labels)
    >>> study_members(table, Protocol(n_resamples=200)).sentence.split(":")[0]
    'noise is not shown to help'
    """
    protocol = protocol or Protocol()
    if oof.n_members < 2:
        raise DataError(
            f"There is {oof.n_members} member",
            "diversity needs at least two",
            "Train at least two members",
        )
    protocol.names(oof)  # refuses a metric without a better direction
    proba = softmax(oof.logits.astype(np.float64))
    worth = _Worth(oof, proba, protocol)
    members, best = _contributions(worth, oof.member_names, protocol.level)
    everyone = (1 << oof.n_members) - 1
    of_all = worth.of[everyone]
    return MemberStudy(
        pairs=_pairs(oof, proba),
        members=members,
        best=best,
        decomposition=ambiguity(proba, np.asarray(oof.labels)),
        whole=Interval(worth.sign * float(of_all[0])),
        protocol=protocol,
        n=len(oof),
        n_groups=oof.n_groups,
        group_kind=oof.group_kind,
        notes=table_notes(oof, None),
    )


class _Worth:
    """Metric of the mean of each set of members: of all rows, then without each block of groups.

    `of[subset]` has the shape (1 + n_blocks,); higher is better.
    """

    def __init__(self, oof: Predictions, proba: Array, protocol: Protocol) -> None:
        self.oof, self.proba, self.protocol = oof, proba, protocol
        self.sign = 1.0 if metric(protocol.metric).higher_is_better else -1.0
        self.of: dict[int, Array] = {}
        self.design: Design | None = None
        # The empty set predicts the class shares.
        shares = np.bincount(oof.labels, minlength=oof.n_classes) / len(oof)
        self._score({0: decided(np.tile(shares, (len(oof), 1)))})

    def add(self, subsets: Sequence[int]) -> None:
        """Score these sets, unless they were scored before."""
        new = [subset for subset in subsets if subset not in self.of]
        for start in range(0, len(new), CHUNK_SETS):
            some = means_of(self.proba, new[start : start + CHUNK_SETS])
            self._score({subset: decided(mean) for subset, mean in some})

    def _score(self, predictions: Mapping[int, Combined]) -> None:
        name = self.protocol.metric
        scored = score_methods(
            {str(subset): one for subset, one in predictions.items()},
            np.asarray(self.oof.labels), self.oof.groups, self.oof.n_classes,
            metrics=[self.protocol.verdict_metric(self.oof.class_names)],
            level=self.protocol.level, intervals=self.protocol.intervals,
        )  # fmt: skip
        for subset in predictions:
            one = scored[str(subset)]
            value = one.values[name].value
            left_out = one.left_out.get(name, np.empty(0))
            first = np.nan if value is None else value
            self.of[subset] = self.sign * np.concatenate([[first], left_out])
            self.design = one.designs.get(name)


def _contributions(worth: _Worth, names: tuple[str, ...], level: float) -> tuple[pd.DataFrame, str]:
    n_members = len(names)
    everyone = (1 << n_members) - 1
    singles = [1 << m for m in range(n_members)]
    worth.add([everyone, *singles, *(everyone ^ one for one in singles)])
    best = int(np.nanargmax([worth.of[one][0] for one in singles]))
    worth.add([singles[best] | one for one in singles])
    table: dict[str, list[Any]] = {"member": list(names)}
    table |= _alone(worth, np.array([worth.of[one] for one in singles]), level)
    table |= _gained("left_out", left_out(worth.of, n_members), worth.design, level)
    table["added"] = added(worth.of, n_members, best)[:, 0].tolist()
    if n_members <= MAX_MEMBERS:
        worth.add(range(1, everyone + 1))
        stacked = np.array([worth.of[subset] for subset in range(everyone + 1)])
        table |= _gained("shapley", shapley(stacked, n_members), worth.design, level)
    else:
        table |= _gained("shapley", np.full((n_members, 1), np.nan), None, level)
    return pd.DataFrame(table), names[best]


def _alone(worth: _Worth, values: Array, level: float) -> dict[str, list[Any]]:
    """Each member's own metric `(n_members, 1 + n_blocks)` as a column with its interval."""
    bounds = metric(worth.protocol.metric).bounds(worth.oof.n_classes)
    plain = worth.sign * values
    found = [
        Interval(float(row[0]))
        if worth.design is None
        else interval_of(float(row[0]), row[1:], worth.design, bounds=bounds, level=level)
        for row in plain
    ]
    return _columns("alone", found)


def _gained(name: str, values: Array, design: Design | None, level: float) -> dict[str, list[Any]]:
    """Gains `(n_members, 1 + n_blocks)` as a column with simultaneous intervals."""
    if design is None:
        found = [Interval(float(row[0])) for row in values]
    else:
        found = [one.effect for one in gains(values[:, 0], values[:, 1:].T, design, level=level)]
    return _columns(name, found)


def _columns(name: str, found: Sequence[Interval]) -> dict[str, list[Any]]:
    def numbers(some: Iterable[float | None]) -> list[float]:
        return [np.nan if one is None else one for one in some]

    return {
        name: numbers(one.value for one in found),
        f"{name}_low": numbers(one.low for one in found),
        f"{name}_high": numbers(one.high for one in found),
    }


def _pairs(oof: Predictions, proba: Array) -> pd.DataFrame:
    labels, n = np.asarray(oof.labels), oof.n_members
    predicted = np.stack([decided(proba[:, m]).predicted for m in range(n)], axis=1)
    measured = pairwise(predicted == labels[:, None])
    a, b = np.triu_indices(n, 1)
    points = kappa_error(predicted, labels, oof.n_classes)
    table = pd.DataFrame(
        {
            "a": [oof.member_names[i] for i in a],
            "b": [oof.member_names[i] for i in b],
            **{name: matrix[a, b] for name, matrix in measured.items()},
            "kappa": points[:, 0],
            "mean_error": points[:, 1],
        }
    )
    return table.sort_values("error_correlation", ascending=False, kind="stable", ignore_index=True)
