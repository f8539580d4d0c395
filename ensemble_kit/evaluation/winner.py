"""Which method is best: one rule for the terminal, the report and everything that uses a method.

Methods are ranked by their cross-fitted metric, never by the test part. Of methods with equal
values the simpler one is first: rules before weights before stackers, as `COMBINERS` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ensemble_kit.combiners import COMBINERS
from ensemble_kit.evaluation.cross_validation.baselines import MEAN, REFERENCE_METHODS
from ensemble_kit.metrics import metric

SIMPLICITY = {name: at for at, name in enumerate(COMBINERS)}


def simplest_first(names: Iterable[str]) -> list[str]:
    """Method names from simple to complex; names that are not in `COMBINERS` are last.

    Examples
    --------
    >>> simplest_first(["mine", "mlp", "vote", "greedy"])
    ['vote', 'greedy', 'mlp', 'mine']
    """
    return sorted(names, key=lambda name: (SIMPLICITY.get(name, len(SIMPLICITY)), name))


def ranked(values: Mapping[str, float | None], metric_name: str) -> list[str]:
    """Method names, best first.

    Parameters
    ----------
    values : mapping of method to float or None
        The cross-fitted metric; methods with None (undefined) are last.
    metric_name : str
        A key of `METRICS`; it decides whether higher or lower is better.

    Examples
    --------
    >>> ranked({"mlp": 0.8, "mean": 0.7, "vote": 0.8, "greedy": None}, "accuracy")
    ['vote', 'mlp', 'mean', 'greedy']
    """
    sign = -1.0 if metric(metric_name).higher_is_better else 1.0

    def key(name: str) -> tuple[bool, float]:
        value = values[name]
        return value is None, 0.0 if value is None else sign * value

    return sorted(simplest_first(values), key=key)


def winner(values: Mapping[str, float | None], metric_name: str) -> str | None:
    """The best method apart from baselines and oracle; the mean if there are only these.

    Returns
    -------
    str or None
        None if there is no mean either.

    Examples
    --------
    >>> winner({"mlp": 0.8, "mean": 0.9, "vote": 0.8}, "accuracy")
    'vote'
    >>> winner({"mean": 0.9, "best-member": 0.95}, "accuracy")
    'mean'
    """
    methods = [name for name in ranked(values, metric_name) if name not in REFERENCE_METHODS]
    return next(iter(methods), MEAN if MEAN in values else None)
