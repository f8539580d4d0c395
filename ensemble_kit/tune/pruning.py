"""Pruning: when a trial is stopped, and the loss that is recorded for it.

Between folds: a paired test over patients against the best trial so far, and a comparison with the
best third of all trials. Within the first fold: Optuna's percentile rule over epochs.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from scipy.stats import wilcoxon

from ensemble_kit.tune.losses import FoldLoss, overall

P_VALUE = 0.1
# Successive halving continues the best third of the trials; a third needs this number of trials.
BEST_PERCENT, FEWEST_TRIALS = 100 / 3, 4
# With few patients in a fold, the ranks after one fold are mostly noise.
FEWEST_FOLDS = 2


def epoch_pruner(epochs: int) -> optuna.pruners.BasePruner:
    """Within the first fold: stop trials whose lowest loss so far is not in the best third."""
    return optuna.pruners.PercentilePruner(
        BEST_PERCENT, n_startup_trials=FEWEST_TRIALS, n_warmup_steps=max(epochs // 3, 1)
    )


def is_worse(trial: Sequence[FoldLoss], incumbent: Sequence[FoldLoss]) -> bool:
    """Whether a trial is worse than the best one, by a signed-rank test over the patients so far.

    Each patient is one observation. The statistic is that of Optuna's `WilcoxonPruner`. That pruner
    is not used, because it also compares means over different numbers of folds.

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


def is_behind(
    trial: Sequence[FoldLoss],
    incumbent: Sequence[FoldLoss],
    others: Sequence[Sequence[FoldLoss]],
) -> bool:
    """Whether a trial is worse than the best one after two folds or more, and not in the best third.

    Parameters
    ----------
    others : sequence of (sequence of FoldLoss)
        The losses of all earlier trials; those with at least as many folds are compared.

    References
    ----------
    Jamieson, K., & Talwalkar, A. (2016). Non-stochastic best arm identification and hyperparameter
    optimization. AISTATS.

    Examples
    --------
    >>> folds = [[FoldLoss(x, 4, (x,))] * 2 for x in (0.2, 0.3, 0.4, 0.5, 0.6)]
    >>> is_behind(folds[1], folds[0], folds), is_behind(folds[3], folds[0], folds)
    (False, True)
    """
    n = len(trial)
    losses_so_far = [overall(other[:n]) for other in others if len(other) >= n]
    if n < FEWEST_FOLDS or len(losses_so_far) < FEWEST_TRIALS or excess(trial, incumbent) <= 0:
        return False
    return overall(trial) > float(np.percentile(losses_so_far, BEST_PERCENT))


def excess(trial: Sequence[FoldLoss], incumbent: Sequence[FoldLoss]) -> float:
    """The trial's loss minus the incumbent's, over the images of the folds so far."""
    pairs = list(zip(trial, incumbent, strict=False))
    return sum((a.loss - b.loss) * a.n for a, b in pairs) / sum(a.n for a, _ in pairs)


def value_of_pruned(excess_so_far: float, incumbent: float, finished: Sequence[float]) -> float:
    """The loss recorded for a pruned trial: an estimate, at least the median of finished trials.

    Without it, the sampler would propose the same settings again.

    Examples
    --------
    >>> value_of_pruned(0.25, incumbent=0.5, finished=[0.5, 0.6, 0.7])
    0.75
    >>> value_of_pruned(0.01, incumbent=0.5, finished=[0.5, 0.6, 0.7])
    0.6
    """
    return max(incumbent + max(excess_so_far, 0.0), statistics.median(finished))
