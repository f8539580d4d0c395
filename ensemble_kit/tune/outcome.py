"""Did tuning help? Each member, and the mean of all, tuned against default on held-out patients.

The tuned values of a fold are chosen on the other folds, so no fold scores its own choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.evaluation.from_arrays import Comparison, compare_predictions
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.metrics.proper_scores import log_loss_per_sample
from ensemble_kit.tune.losses import overall
from ensemble_kit.tune.member_study import MemberStudy
from ensemble_kit.tune.trials import (
    OUT_OF_MEMORY,
    PRUNED,
    TrialResult,
    best_of,
    default_of,
    ended,
    losses_of,
    result_of,
    whole,
)

ENSEMBLE = "mean of all"


@dataclasses.dataclass(frozen=True)
class Gain:
    """Tuned against default, by log loss (nats) on held-out patients.

    Parameters
    ----------
    default, tuned : float
        `tuned` is cross-fitted: the values of a fold are chosen on the other folds.
    comparison : Comparison
        Default minus tuned, paired, with its interval over patients.
    """

    name: str
    default: float
    tuned: float
    comparison: Comparison


@dataclasses.dataclass(frozen=True)
class TunedMember:
    """The study of one member.

    Parameters
    ----------
    best : TrialResult or None
        None if no trial ended with all folds trained.
    gain : Gain or None
        None without a finished default, or if logits of trials are on another host.
    """

    name: str
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    default: TrialResult | None
    gain: Gain | None
    share_of_images: float | None

    @property
    def n_pruned(self) -> int:
        return sum(one.outcome == PRUNED for one in self.trials)

    @property
    def n_out_of_memory(self) -> int:
        return sum(one.outcome == OUT_OF_MEMORY for one in self.trials)


@dataclasses.dataclass(frozen=True)
class TuningResult:
    """The studies of all members, and the gain of the mean of their predictions."""

    members: tuple[TunedMember, ...]
    ensemble: Gain | None
    notes: tuple[str, ...] = ()


def tuning_result(
    studies: Mapping[str, MemberStudy], train: Manifest, notes: Sequence[str] = ()
) -> TuningResult:
    """What the studies found, and whether it helped."""
    members, pairs = [], []
    for name, study in studies.items():
        trials = ended(study.study)
        pair = _probabilities(study, trials)
        gain = None if pair is None else _gain(name, *pair, train)
        pairs.append(pair)
        best, default = best_of(trials), default_of(trials)
        results = tuple(result_of(trial) for trial in trials)
        members.append(
            TunedMember(
                name,
                results,
                None if best is None else result_of(best),
                None if default is None else result_of(default),
                gain,
                share_of_images(results),
            )
        )
    ensemble = None
    if len(pairs) > 1 and all(pair is not None for pair in pairs):
        default, tuned = (np.mean([p[i] for p in pairs if p is not None], axis=0) for i in (0, 1))
        ensemble = _gain(ENSEMBLE, default, tuned, train)
    return TuningResult(tuple(members), ensemble, tuple(notes))


def share_of_images(trials: Sequence[TrialResult]) -> float | None:
    """Images trained on, as a share of those of the same trials without pruning (equal epochs)."""
    full = [one.epoch_images for one in trials if one.loss is not None]
    if not full:
        return None
    spent = sum(one.epoch_images for one in trials)
    return spent / (len(trials) * sum(full) / len(full))


def cross_fitted_choice(losses: Sequence[Sequence[Any]]) -> list[int]:
    """For each fold, the trial with the lowest loss over the other folds.

    Parameters
    ----------
    losses : sequence of (sequence of FoldLoss)
        Of each trial, all folds.

    Examples
    --------
    >>> from ensemble_kit.tune.losses import FoldLoss
    >>> a, b = ([FoldLoss(x, 1, (x,)) for x in fold] for fold in ((0.1, 0.9), (0.5, 0.6)))
    >>> cross_fitted_choice([a, b])
    [1, 0]
    """
    n_folds = len(losses[0])
    return [
        min(
            range(len(losses)),
            key=lambda t: overall([f for j, f in enumerate(losses[t]) if j != k]),
        )
        for k in range(n_folds)
    ]


def oof_proba(study: MemberStudy, chosen: Sequence[FrozenTrial]) -> Array | None:
    """Out-of-fold probabilities of the training rows, fold k by the k-th of these trials."""
    objective = study.objective
    out = np.full((len(objective.train), objective.train.n_classes), np.nan)
    for fold, trial in enumerate(chosen):
        found = objective.files_of(trial.user_attrs).read(fold)
        if found is None:
            return None
        logits = found.logits.astype(np.float64)
        out[objective.held_out(fold)] = softmax(logits[:, None])[:, 0]
    return out


def _probabilities(study: MemberStudy, trials: list[FrozenTrial]) -> tuple[Array, Array] | None:
    """Those of the default, and of the trials that the other folds choose."""
    default, tried = default_of(trials), whole(trials)
    if default is None:
        return None
    chosen = cross_fitted_choice([losses_of(trial) for trial in tried])
    of_default = oof_proba(study, [default] * len(chosen))
    of_chosen = oof_proba(study, [tried[t] for t in chosen])
    return None if of_default is None or of_chosen is None else (of_default, of_chosen)


def _gain(name: str, default: Array, tuned: Array, train: Manifest) -> Gain:
    losses = [float(log_loss_per_sample(train.labels, p).mean()) for p in (default, tuned)]
    compared = compare_predictions(train.labels, tuned, default, train.groups, metric="log_loss")
    return Gain(name, losses[0], losses[1], compared)
