"""Chance level: the value of a metric without looking at the images, and whether a method exceeds it.

Works on one method's `metrics.json`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from ensemble_kit.metrics import metric

Block = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Chance:
    """The chance level of a metric on one part.

    Parameters
    ----------
    level : float
    how : str
        The guess that reaches it, as words for brackets.
    """

    level: float
    how: str

    def __str__(self) -> str:
        return f"{self.level:.3f} ({self.how})"


def chance_of(name: str, block: Block) -> Chance | None:
    """The chance level of a metric; None if it is not defined, or if only one class has images.

    Parameters
    ----------
    name : str
        A key of `METRICS`.
    block : mapping
        A part of `metrics.json` with `per_class`.

    Examples
    --------
    >>> block = {"per_class": {"benign": {"n": 30}, "malignant": {"n": 10}}}
    >>> str(chance_of("balanced_accuracy", block))
    '0.500 (1 / 2 classes)'
    >>> str(chance_of("accuracy", block))
    '0.750 (always the most frequent class)'
    """
    counts = [one["n"] for one in block.get("per_class", {}).values() if one["n"]]
    if len(counts) < 2 or name not in _LEVELS:
        return None
    return _LEVELS[name](counts)


def above_chance(name: str, block: Block, *, moved: float = 0.0) -> bool | None:
    """Whether the interval of the metric excludes its chance level.

    Without an interval: False if the value is not above chance, else None (not known).

    Parameters
    ----------
    name, block
        As in `chance_of`.
    moved : float
        A correction of the value, e.g. for the choice among methods. It also moves the interval.
    """
    chance, found = chance_of(name, block), block.get(name)
    if chance is None or not found or found["value"] is None:
        return None
    sign = 1.0 if metric(name).higher_is_better else -1.0
    if sign * (found["value"] + moved - chance.level) <= 0:
        return False
    worst = found["low"] if sign > 0 else found["high"]
    return None if worst is None else bool(sign * (worst + moved - chance.level) > 0)


def _of_shares(counts: list[int]) -> Chance:
    shares = [n / sum(counts) for n in counts]
    return Chance(-sum(p * math.log(p) for p in shares), "always the class shares")


_LEVELS: dict[str, Callable[[list[int]], Chance]] = {
    "balanced_accuracy": lambda counts: Chance(1.0 / len(counts), f"1 / {len(counts)} classes"),
    "accuracy": lambda counts: Chance(max(counts) / sum(counts), "always the most frequent class"),
    "auroc": lambda _: Chance(0.5, "random order"),
    "mcc": lambda _: Chance(0.0, "random classes"),
    "kappa": lambda _: Chance(0.0, "random classes"),
    "quadratic_weighted_kappa": lambda _: Chance(0.0, "random classes"),
    "log_loss": _of_shares,
}
