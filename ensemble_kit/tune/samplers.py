"""The sampler of a study, chosen by its number of trials."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import TrialState

# From this number of trials, the tree-structured Parzen estimator replaces the Gaussian process.
MOST_OF_GP, RANDOM_TRIALS = 100, 6
# Most random draws for a trial with repeated values; a space may have fewer values than trials.
MOST_DRAWS = 20
TRIED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class _NoRepeats(optuna.samplers.BaseSampler):
    """Replaces repeated values by random ones, because the loss would be the same."""

    def sample_relative(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        search_space: dict[str, optuna.distributions.BaseDistribution],
    ) -> dict[str, Any]:
        """The sampler's values, or values drawn at random if a trial has these already."""
        values = super().sample_relative(study, trial, search_space)  # type: ignore[safe-super]
        tried = [t.params for t in study.get_trials(deepcopy=False, states=TRIED)]
        other, n = optuna.samplers.RandomSampler(seed=trial.number), 0
        while values and n < MOST_DRAWS and any(values.items() <= one.items() for one in tried):
            values = {
                name: other.sample_independent(study, trial, name, axis)
                for name, axis in search_space.items()
            }
            n += 1
        return values


class GaussianProcess(_NoRepeats, optuna.samplers.GPSampler):
    """Optuna's sampler for short studies, without repeats."""


class ParzenEstimator(_NoRepeats, optuna.samplers.TPESampler):
    """Optuna's sampler for long studies, without repeats."""


def sampler(seed: int, n_trials: int) -> optuna.samplers.BaseSampler:
    """A Gaussian process for a short study, a multivariate Parzen estimator for a long one.

    Examples
    --------
    >>> type(sampler(0, 10)).__name__, type(sampler(0, 100)).__name__
    ('GaussianProcess', 'ParzenEstimator')
    """
    seed %= 2**32
    if n_trials < MOST_OF_GP:
        return GaussianProcess(
            seed=seed, n_startup_trials=RANDOM_TRIALS, warn_independent_sampling=False
        )
    return ParzenEstimator(seed=seed, multivariate=True)
