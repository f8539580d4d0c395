"""Tuning of a combiner on the out-of-fold predictions of a run, over its folds."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from ensemble_kit.arrays import Array, Bools, Ints
from ensemble_kit.combiners import Combiner, make_combiner
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.evaluation.cross_validation.cross_fit import fold_of
from ensemble_kit.evaluation.from_arrays import compare_predictions
from ensemble_kit.files import digest_bytes
from ensemble_kit.metrics.proper_scores import log_loss_per_sample
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run
from ensemble_kit.seeding import derive_seed
from ensemble_kit.tune.best import write_best
from ensemble_kit.tune.losses import FoldLoss, overall
from ensemble_kit.tune.outcome import Gain
from ensemble_kit.tune.samplers import sampler
from ensemble_kit.tune.space import Dimension
from ensemble_kit.tune.storage import database, open_storage, storage_path
from ensemble_kit.tune.study_facts import refuse_other_facts
from ensemble_kit.tune.trials import (
    DEFAULT,
    FINISHED,
    FOLD,
    ORIGIN,
    OUTCOME,
    SECONDS,
    VALUES,
    TrialResult,
    best_of,
    ended,
    result_of,
)

SPACES: dict[str, tuple[Dimension, ...]] = {
    "mlp": (
        Dimension("hidden", "log2", 1, 7),
        Dimension("epochs", "int", 5, 100),
        Dimension("weight_decay", "log", 1e-3, 10.0),
    ),
    "logistic": (Dimension("c", "log", 1e-4, 10.0),),
    "boosting": (
        Dimension("n_rounds", "int", 10, 300),
        Dimension("learning_rate", "log", 0.01, 0.3),
        Dimension("max_leaves", "log2", 1, 5),
    ),
}
COMBINER = "@combiner"
INNER = "inner"


@dataclasses.dataclass(frozen=True)
class TunedCombiner:
    """The tuning of a combiner.

    Parameters
    ----------
    method : str
    trials : tuple of TrialResult
    best : TrialResult
        The trial with the lowest log loss over all folds.
    gain : Gain
        Default minus tuned; the settings of each fold are chosen on the other folds.
    """

    method: str
    trials: tuple[TrialResult, ...]
    best: TrialResult
    gain: Gain


@dataclasses.dataclass(frozen=True, eq=False)
class _Fits:
    """Fits of one combiner without each fold, and without each pair of folds."""

    method: str
    oof: Predictions
    seed: int

    def losses(self, values: Mapping[str, Any]) -> tuple[list[FoldLoss], list[float]]:
        """Two losses per fold k: that of fold k by a fit without it; and that of the other folds j
        by fits without k and j."""
        fold, names, pairs = self._splits()
        fitted = self._fitted(values)
        outer = [self._loss(one, fold == k) for k, one in zip(names, fitted, strict=False)]
        inner: dict[int, list[FoldLoss]] = {k: [] for k in names.tolist()}
        for (k, j), one in zip(pairs, fitted[len(names) :], strict=True):
            inner[k].append(self._loss(one, fold == j))
            inner[j].append(self._loss(one, fold == k))
        return outer, [overall(inner[k]) for k in names.tolist()]

    def proba(self, chosen: Sequence[Mapping[str, Any]]) -> Array:
        """Probabilities of all rows; `chosen[k]` are the settings for the k-th fold."""
        fold, names, _ = self._splits()
        out = np.empty((len(self.oof), self.oof.n_classes))
        fitted: dict[str, list[Combiner]] = {}
        for i, values in enumerate(chosen):
            if str(values) not in fitted:
                fitted[str(values)] = self._fitted(values)
            own = fold == names[i]
            out[own] = fitted[str(values)][i].apply(self.oof.take(own)).proba
        return out

    def _splits(self) -> tuple[Ints, Ints, list[tuple[int, int]]]:
        """The fold of each row, the folds, and all pairs of folds."""
        fold = fold_of(self.oof)
        names = np.unique(fold)
        return fold, names, list(itertools.combinations(names.tolist(), 2))

    def _fitted(self, values: Mapping[str, Any]) -> list[Combiner]:
        """Fits without each fold, then without each pair of folds.

        All fits are made together, because the perceptron trains its networks as one batch.
        """
        fold, names, pairs = self._splits()
        rows = [np.flatnonzero(fold != k) for k in names]
        rows += [np.flatnonzero((fold != k) & (fold != j)) for k, j in pairs]
        return self._made(values).fit_each(self.oof, rows)

    def _made(self, values: Mapping[str, Any]) -> Combiner:
        made = make_combiner(self.method, **values)
        return made.set_params(seed=self.seed) if "seed" in made.get_params() else made

    def _loss(self, one: Combiner, rows: Bools) -> FoldLoss:
        part = self.oof.take(rows)
        each = log_loss_per_sample(part.labels, one.apply(part).proba)
        _, of = np.unique(part.groups, return_inverse=True)
        patients = np.bincount(of, weights=each) / np.bincount(of)
        return FoldLoss(float(each.mean()), len(each), tuple(map(float, patients)))


def tune_combiner(
    method: str,
    run: Run,
    *,
    n_trials: int = 20,
    seed: int = 0,
) -> TunedCombiner:
    """Tune the settings of a combiner on a run's out-of-fold predictions.

    A trial is scored by the log loss of the cross-fitted combiner: it is fitted without each fold,
    and predicts that fold. The first trial has the default settings. The same call resumes an
    interrupted tuning.

    Parameters
    ----------
    method : {"mlp", "logistic", "boosting"}
    run : Run
        A run with three folds or more; all folds of all members must be finished.
    n_trials : int
        Total number of trials, including those of earlier calls.

    Returns
    -------
    TunedCombiner

    Raises
    ------
    UsageError
        A combiner that cannot be tuned, or fewer than three folds.
    DataError
        No predictions, an unfinished member, or an earlier study with other predictions.
    RunLockedError
        Another process works on this run.
    """
    if method not in SPACES:
        raise UsageError(
            f"The combiner '{method}' cannot be tuned",
            f"the combiners that can be tuned are {', '.join(SPACES)}",
            did_you_mean(method, SPACES),
        )
    with run.locked(), database(storage_path(run)):
        oof = run.predictions("oof")
        n_folds = len(np.unique(fold_of(oof)))
        if n_folds < 3:
            raise UsageError(
                f"'{run.path.as_posix()}' has {n_folds} folds",
                "settings are chosen without two of the folds, so three are needed",
                "Train with --folds 3 or more",
            )
        fits = _Fits(method, oof, seed)
        study = _opened(method, run, oof, seed)
        while len(trials := ended(study)) < n_trials:
            study.sampler = sampler(derive_seed(seed, method, "sampler", len(trials)), len(trials))
            study.optimize(lambda trial: _scored(trial, fits), n_trials=1)
        return _result(method, run, study, fits)


def _opened(method: str, run: Run, oof: Predictions, seed: int) -> optuna.Study:
    study = optuna.create_study(
        storage=open_storage(run), study_name=f"{method}{COMBINER}", load_if_exists=True
    )
    logits = digest_bytes(np.ascontiguousarray(oof.logits).tobytes())
    facts = {"members": list(oof.member_names), "logits": logits, "seed": seed}
    refuse_other_facts(study, facts, f"the combiner {method}")
    if not study.get_trials(deepcopy=False):
        own = make_combiner(method).get_params()
        study.enqueue_trial(
            {a.parameter: a.coordinate(own[a.name]) for a in SPACES[method]},
            user_attrs={ORIGIN: DEFAULT},
        )
    return study


def _scored(trial: optuna.Trial, fits: _Fits) -> float:
    began = time.perf_counter()
    values = {axis.name: axis.suggested(trial) for axis in SPACES[fits.method]}
    outer, inner = fits.losses(values)
    for k, loss in enumerate(outer):
        trial.set_user_attr(f"{FOLD}{k}", loss.to_json())
    about = {VALUES: values, INNER: inner, SECONDS: time.perf_counter() - began, OUTCOME: FINISHED}
    for name, value in about.items():
        trial.set_user_attr(name, value)
    return overall(outer)


def _result(method: str, run: Run, study: optuna.Study, fits: _Fits) -> TunedCombiner:
    trials = ended(study)
    best = best_of(trials)
    assert best is not None
    default = result_of(trials[0]).values
    inner = np.array([trial.user_attrs[INNER] for trial in trials])
    chosen = [result_of(trials[t]).values for t in inner.argmin(axis=0)]
    before, after = fits.proba([default] * len(chosen)), fits.proba(chosen)
    oof, found = fits.oof, result_of(best)
    losses = [float(log_loss_per_sample(oof.labels, p).mean()) for p in (before, after)]
    compared = compare_predictions(oof.labels, after, before, oof.groups, metric="log_loss")
    about = {"value": found.loss, "default": trials[0].value, "trial": found.number}
    write_best(run, f"{method}{COMBINER}", found.values, {**about, "n_trials": len(trials)})
    gain = Gain(method, losses[0], losses[1], compared)
    return TunedCombiner(method, tuple(map(result_of, trials)), found, gain)
