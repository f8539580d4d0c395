"""The samplers of a study repeat no trial."""

from __future__ import annotations

import optuna
import pytest

from ensemble_kit.tune.samplers import GaussianProcess, ParzenEstimator, sampler


@pytest.mark.parametrize(("n_trials", "kind"), [(12, GaussianProcess), (100, ParzenEstimator)])
def test_samplers_do_not_repeat_values(n_trials: int, kind: type) -> None:
    # The best values are at a corner, which Optuna's Gaussian process samples repeatedly.
    study = optuna.create_study()
    for number in range(16):
        study.sampler = sampler(number, n_trials)
        assert isinstance(study.sampler, kind)
        study.optimize(
            lambda t: -t.suggest_float("x", 1e-5, 0.1, log=True) - t.suggest_int("k", 3, 5), 1
        )
    tried = [tuple(trial.params.items()) for trial in study.trials]
    assert len(set(tried)) == len(tried)
