"""When a trial is not worth further folds, and the value that the sampler learns from it.

Between folds: a paired test over patients against the best trial so far. Within the first fold:
Optuna's median rule over epochs, which is not in this file.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence

import numpy as np
from scipy.stats import wilcoxon

from ensemble_kit.tune.losses import FoldLoss

P_VALUE = 0.1


def is_worse(trial: Sequence[FoldLoss], incumbent: Sequence[FoldLoss]) -> bool:
    """Whether a trial is worse than the best one, by a signed-rank test over the patients so far.

    Each patient is one observation. The same statistic as Optuna's `WilcoxonPruner`; that pruner
    also compares the incumbent's mean over all folds with the trial's mean over the folds so far,
    which never prunes if the first fold is an easy one.

    References
    ----------
    Wilcoxon, F. (1945). Individual comparisons by ranking methods. Biometrics Bulletin 1(6), 80-83.

    Examples
    --------
    >>> good, bad = (FoldLoss(x, 4, (x, x + 0.01, x + 0.02, x + 0.03)) for x in (0.5, 0.9))
    >>> is_worse([bad], [good]), is_worse([good], [bad])
    (True, False)
    """
    own = np.concatenate([f.patients for f in trial])
    best = np.concatenate([f.patients for f in incumbent[: len(trial)]])
    if excess(trial, incumbent) <= 0 or len(own) < 2:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few patients or ties
        test = wilcoxon(own - best, alternative="greater", zero_method="zsplit")
    return bool(test.pvalue < P_VALUE)


def excess(trial: Sequence[FoldLoss], incumbent: Sequence[FoldLoss]) -> float:
    """How much higher the trial's loss is than the incumbent's, over the images of the folds so far."""
    pairs = list(zip(trial, incumbent, strict=False))
    return sum((a.loss - b.loss) * a.n for a, b in pairs) / sum(a.n for a, _ in pairs)


def value_of_pruned(excess_so_far: float, incumbent: float, finished: Sequence[float]) -> float:
    """The loss that a pruned trial is recorded with: an estimate, never better than the median trial.

    A sampler that never hears of pruned trials would propose the same settings again.

    Examples
    --------
    >>> value_of_pruned(0.25, incumbent=0.5, finished=[0.5, 0.6, 0.7])
    0.75
    >>> value_of_pruned(0.01, incumbent=0.5, finished=[0.5, 0.6, 0.7])
    0.6
    """
    return max(incumbent + max(excess_so_far, 0.0), statistics.median(finished))
