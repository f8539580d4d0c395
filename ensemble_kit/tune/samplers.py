"""The sampler of a study by the number of its trials."""

from __future__ import annotations

import optuna

# Beyond so many trials the Gaussian process is replaced by the tree-structured Parzen estimator.
MOST_OF_GP, RANDOM_TRIALS = 100, 6


def sampler(seed: int, n_trials: int) -> optuna.samplers.BaseSampler:
    """A Gaussian process for a short study, a multivariate Parzen estimator for a long one.

    Examples
    --------
    >>> type(sampler(0, 10)).__name__, type(sampler(0, 100)).__name__
    ('GPSampler', 'TPESampler')
    """
    seed %= 2**32
    if n_trials < MOST_OF_GP:
        return optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=RANDOM_TRIALS, warn_independent_sampling=False
        )
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)
