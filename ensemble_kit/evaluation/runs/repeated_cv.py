"""Compare a method with the baselines over repeated cross-validation (Nadeau and Bengio's t test).

Each repeat is a run over the same images with other random folds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import sqrt

import numpy as np
import pandas as pd

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.cross_validation.baselines import BASELINES
from ensemble_kit.evaluation.cross_validation.cross_fit import fold_of
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.compare_runs import (
    notes_of,
    refuse_repeated,
    shared_notes,
)
from ensemble_kit.evaluation.runs.method_predictions import StoredPredictions, stored_predictions
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.scores.verdict import CLAIMS, NOUNS
from ensemble_kit.evaluation.uncertainty.hypothesis_tests import SMALLEST, nadeau_bengio
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.metrics import Metric
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True)
class RepeatedGain:
    """The gain of a method over a baseline, over all folds of all repeats.

    Parameters
    ----------
    method, against, metric : str
    gain : Interval
        Mean over the folds, positive if `method` is better, with the interval of the corrected t
        test.
    p_value : float or None
        Two-sided; None if the gain is equal in all folds.
    word : {"better", "not shown", "worse"}
    n : int
        Number of folds in which both metrics are defined.
    sentence : str
    """

    method: str
    against: str
    metric: str
    gain: Interval
    p_value: float | None
    word: str
    n: int
    sentence: str


@dataclasses.dataclass(frozen=True, eq=False)
class Repeats:
    """A method and the baselines over repeated folds.

    Parameters
    ----------
    folds : DataFrame
        `run, fold, n`, then one column per method: its metric on the images of that fold.
    gains : tuple of RepeatedGain
    metric : str
    n, n_groups, n_splits : int
        Images and groups of each repeat, and its folds.
    group_kind : str
    notes : tuple of str
    """

    folds: pd.DataFrame
    gains: tuple[RepeatedGain, ...]
    metric: str
    n: int
    n_groups: int
    n_splits: int
    group_kind: str
    notes: tuple[str, ...]

    @property
    def methods(self) -> list[str]:
        """The method, then the baselines."""
        return [str(name) for name in self.folds.columns[3:]]

    @property
    def n_repeats(self) -> int:
        return int(self.folds["run"].nunique())


def compare_repeats(
    runs: Sequence[Run], *, method: str = "mean", protocol: Protocol | None = None
) -> Repeats:
    """Compare a method with best member and mean over repeated cross-validation.

    Parameters
    ----------
    runs : sequence of Run
        Made by `train-members --repeats`, each stacked by `method`.
    method : str
    protocol : Protocol, optional
        Its metric and level are used.

    Returns
    -------
    Repeats

    Raises
    ------
    UsageError
        Fewer than two runs, the same run twice, or a run that was not stacked by `method`.
    DataError
        Runs with different images or members, or with the same folds.

    References
    ----------
    Nadeau, C., & Bengio, Y. (2003). Inference for the generalization error. Machine Learning 52,
    239-281. Bouckaert, R. R., & Frank, E. (2004). Evaluating the replicability of significance
    tests for comparing learning algorithms. PAKDD.
    """
    refuse_repeated(runs, method)
    protocol = (protocol or Protocol()).for_data(runs[0].manifest())
    methods = list(dict.fromkeys([method, *BASELINES]))
    stored = [{name: stored_predictions(run, name) for name in methods} for run in runs]
    tables = [of[method].oof_table for of in stored]
    _refuse_no_repeats(runs, tables)
    metric = next(one for one in protocol.all_metrics(tables[0]) if one.name == protocol.metric)
    rows = [
        row
        for run, of in zip(runs, stored, strict=True)
        for row in _per_fold(run.path.as_posix(), of, metric)
    ]
    folds = pd.DataFrame(rows, columns=["run", "fold", "n", *methods])
    n_splits = len(np.unique(fold_of(tables[0])))
    gains = [
        _gain(folds, method, baseline, metric, n_splits=n_splits, level=protocol.level)
        for baseline in methods[1:]
    ]
    notes = {run.path.as_posix(): notes_of(run, method) for run in runs}
    return Repeats(
        folds, tuple(gains), protocol.metric, len(tables[0]), tables[0].n_groups, n_splits,
        tables[0].group_kind, shared_notes(notes),
    )  # fmt: skip


def corrected_interval(
    gains: Array, *, test_share: float, level: float = 0.95
) -> tuple[float, float]:
    """The interval of the mean gain by Nadeau and Bengio's corrected t test.

    Parameters
    ----------
    gains : array, shape (n_folds,)
        Gains of at least two folds.
    test_share : float
        Size of a fold over the size of its training set.

    Examples
    --------
    >>> low, high = corrected_interval(np.array([0.02, 0.01, 0.03, 0.02, 0.02]), test_share=0.25)
    >>> round(low, 4), round(high, 4)
    (0.0068, 0.0332)
    """
    from scipy.stats import t

    n, mean = len(gains), float(gains.mean())
    spread = sqrt(float(gains.var(ddof=1)) * (1.0 / n + test_share))
    half = float(t.ppf((1.0 + level) / 2.0, n - 1)) * spread
    return mean - half, mean + half


def _per_fold(
    run: str, stored: dict[str, StoredPredictions], metric: Metric
) -> list[tuple[object, ...]]:
    """Each fold's metric of every method, on the images of the fold; NaN if undefined."""
    first = next(iter(stored.values()))
    table, fold, rows = first.oof, first.fold, []
    for k in np.unique(fold):
        inside = fold == k
        scored = score_methods(
            {name: one.oof.take(inside) for name, one in stored.items()},
            table.labels[inside], table.groups[inside], table.n_classes,
            metrics=[metric], intervals=False,
        )  # fmt: skip
        values = [one.values[metric.name].value for one in scored.values()]
        rows.append((run, int(k), int(inside.sum()), *(np.nan if v is None else v for v in values)))
    return rows


def _gain(
    folds: pd.DataFrame, method: str, baseline: str, metric: Metric, *, n_splits: int, level: float
) -> RepeatedGain:
    sign = 1.0 if metric.higher_is_better else -1.0
    gains = sign * (folds[method] - folds[baseline]).dropna().to_numpy(dtype=np.float64)
    gain, p_value, share = Interval(None), None, 1.0 / (n_splits - 1)
    if len(gains):
        gain = Interval(float(gains.mean()))
    if len(gains) > 1 and np.ptp(gains) > SMALLEST:  # else the variance is zero
        gain = Interval(gain.value, *corrected_interval(gains, test_share=share, level=level))
        p_value = nadeau_bengio(gains, test_share=share).p_value
    word = "better" if (gain.low or 0) > 0 else "worse" if (gain.high or 0) < 0 else "not shown"
    over = f"{level * 100:.0f} %, over {folds['run'].nunique()} repeats x {n_splits} folds"
    if undefined := len(folds) - len(gains):
        over += f", without {undefined} folds in which the metric is undefined"
    claim = CLAIMS[word].format(method, NOUNS.get(baseline, baseline))
    text = f"{claim}: {_value_text(metric.name, gain, p_value)} ({over})."
    return RepeatedGain(method, baseline, metric.name, gain, p_value, word, len(gains), text)


def _value_text(name: str, gain: Interval, p_value: float | None) -> str:
    noun = name.replace("_", " ")
    if gain.value is None:
        return f"{noun} is undefined in every fold"
    if gain.low is None:
        return f"mean gain in {noun} {gain.value:+.3f}, the same in every fold, so no interval"
    return (
        f"mean gain in {noun} {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], "
        f"p = {p_value:.3f}"
    )


def _refuse_no_repeats(runs: Sequence[Run], tables: Sequence[Predictions]) -> None:
    """Raise DataError unless the runs have the same images and members, and different folds."""
    wanted = _facts(tables[0])
    drawn: dict[tuple[int, ...], Run] = {}
    for run, one in zip(runs, tables, strict=True):
        facts = _facts(one)
        differ = [name for name in facts if facts[name] != wanted[name]]
        if differ:
            raise DataError(
                f"'{run.path}' has other {differ[0]} than '{runs[0].path}'",
                "repeats have the same images and members, and other folds",
                "Name the runs of one train-members --repeats, or leave out --repeats",
            )
        folds = _partition(one)
        if folds in drawn:
            raise DataError(
                f"'{run.path}' has the same folds as '{drawn[folds].path}'",
                "each repeat needs other random folds",
                "Name the runs of one train-members --repeats",
            )
        drawn[folds] = run


def _facts(table: Predictions) -> dict[str, object]:
    """The properties that must be equal in all repeats."""
    order = np.argsort(table.sample_ids)
    return {
        "images": table.sample_ids[order].tolist(),
        "classes": table.class_names,
        "labels": table.labels[order].tolist(),
        "members": sorted(table.member_names),
        "numbers of folds": len(np.unique(fold_of(table))),
    }


def _partition(table: Predictions) -> tuple[int, ...]:
    """A key of the division into folds that does not depend on the numbers of the folds."""
    fold = fold_of(table)[np.argsort(table.sample_ids)]
    _, first, numbered = np.unique(fold, return_index=True, return_inverse=True)
    return tuple(first[numbered].tolist())
