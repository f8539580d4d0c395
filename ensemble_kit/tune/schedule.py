"""The member of the next trial, and the expected remaining time.

Without a time limit, members are tuned one after the other. With a time limit, the member with the
largest gain per second is next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ensemble_kit.tune.trials import FINISHED, TrialResult

# Trials of each member before members are compared; last trials for the gain per second.
FIRST, LAST = 6, 5


def next_member(
    results: Mapping[str, Sequence[TrialResult]],
    n_trials: int,
    *,
    by_gain: bool,
    running: Mapping[str, int] | None = None,
) -> str | None:
    """The member that gets the next trial; None if all have `n_trials`, ended or running.

    Parameters
    ----------
    running : mapping of member name to int
        Number of running trials.
    by_gain : bool
        With a time limit: after a few trials each, the member whose best loss fell most per second
        over its last trials is next. Of equals it is the one with fewer trials.

    Examples
    --------
    >>> next_member({"a": [], "b": []}, 20, by_gain=True)
    'a'
    """
    begun = {name: len(done) + (running or {}).get(name, 0) for name, done in results.items()}
    waiting = [name for name in results if begun[name] < n_trials]
    if not waiting or not by_gain:
        return waiting[0] if waiting else None
    fewest = min(waiting, key=lambda name: begun[name])
    if begun[fewest] < min(FIRST, n_trials):
        return fewest
    return max(waiting, key=lambda name: (gain_per_second(results[name]), -begun[name]))


def gain_per_second(done: Sequence[TrialResult]) -> float:
    """Decrease of the best loss per second, over the last trials."""
    seconds = sum(one.seconds for one in done[-LAST:])
    before, now = _best(done[:-LAST]), _best(done)
    if not math.isfinite(before) or not seconds:
        return 0.0
    return (before - now) / seconds


def seconds_left(
    results: Mapping[str, Sequence[TrialResult]], n_trials: int, workers: int = 1
) -> float | None:
    """Expected seconds of the remaining trials, from the ended ones; None without ended trials."""
    means = {
        name: sum(one.seconds for one in done) / len(done) for name, done in results.items() if done
    }
    if not means:
        return None
    typical = sum(means.values()) / len(means)
    left = sum(
        max(n_trials - len(done), 0) * means.get(name, typical) for name, done in results.items()
    )
    return left / workers


def _best(done: Sequence[TrialResult]) -> float:
    return min(
        (one.loss for one in done if one.outcome == FINISHED and one.loss is not None),
        default=math.inf,
    )
