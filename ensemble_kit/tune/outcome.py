"""The gains by tuning: each member and the mean of all, tuned and default, on held-out patients.

The tuned values of a fold are chosen on the other folds.
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
from ensemble_kit.tune.kept_trials import Library, Pick
from ensemble_kit.tune.losses import overall
from ensemble_kit.tune.member_study import MemberStudy, oof_logits
from ensemble_kit.tune.trials import (
    PRUNED,
    TrialResult,
    best_of,
    default_of,
    ended,
    finished,
    losses_of,
    result_of,
)

ENSEMBLE, KEPT = "mean of all", "kept trials"


@dataclasses.dataclass(frozen=True)
class Gain:
    """The log loss (nats) of default and tuned settings on held-out patients.

    Parameters
    ----------
    name : str
    default, tuned : float
        Log losses. `tuned` is cross-fitted: the values of a fold are chosen on the other folds.
    comparison : Comparison
        Default minus tuned, paired, with an interval over patients.
    """

    name: str
    default: float
    tuned: float
    comparison: Comparison

    def to_json(self) -> dict[str, Any]:
        """The stored row."""
        found = self.comparison
        return {
            "name": self.name,
            "default": self.default,
            "tuned": self.tuned,
            **{k: getattr(found, k) for k in ("value", "low", "high", "verdict", "n_groups")},
        }


@dataclasses.dataclass(frozen=True)
class TunedMember:
    """The tuning of one member.

    Parameters
    ----------
    best : TrialResult or None
        None if no trial ended with all folds trained.
    gain : Gain or None
        None without a finished default trial, or if logits of trials are on another host.
    share_of_images : float or None
        See `share_of_images`.
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


@dataclasses.dataclass(frozen=True)
class TuningResult:
    """The tuning of all members, and the gains of ensembles over the mean of the default members.

    Parameters
    ----------
    ensemble : Gain or None
        Gain of the mean of all tuned members; None with a single member, or if a member has no gain.
    kept : Gain or None
        Gain of the trials that greedy selection selects; None without `keep_trials`.
    picks : tuple of Pick
        The selected trials.
    nested : tuple of Gain
        Gains of the members and of their mean by nested tuning; empty without `nested`, or if the
        time ended before.
    """

    members: tuple[TunedMember, ...]
    ensemble: Gain | None
    notes: tuple[str, ...] = ()
    kept: Gain | None = None
    picks: tuple[Pick, ...] = ()
    nested: tuple[Gain, ...] = ()

    @property
    def gains(self) -> list[Gain]:
        """The gains of the members, then those of the ensembles, without missing ones."""
        own = [one.gain for one in self.members]
        return [gain for gain in (*own, self.ensemble, self.kept) if gain is not None]


def tuning_result(
    studies: Mapping[str, MemberStudy],
    train: Manifest,
    notes: Sequence[str] = (),
    library: Library | None = None,
) -> TuningResult:
    """The results of the studies, with the gains; with a library, also its greedy selection."""
    members, pairs = [], []
    for name, study in studies.items():
        trials = ended(study.study)
        pair = _probabilities(study, trials)
        gain = None if pair is None else paired_gain(name, *_as_scored(study, pair), train)
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
    ensemble = kept = None
    if pairs and all(pair is not None for pair in pairs):
        default, tuned = (np.mean([p[i] for p in pairs if p is not None], axis=0) for i in (0, 1))
        if len(pairs) > 1:
            ensemble = paired_gain(ENSEMBLE, default, tuned, train)
        if library is not None:
            kept = paired_gain(KEPT, default, library.proba(), train)
    picks = tuple(library.picks()) if library is not None else ()
    return TuningResult(tuple(members), ensemble, tuple(notes), kept, picks)


def share_of_images(trials: Sequence[TrialResult]) -> float | None:
    """Images trained on, as a share of those without pruning (with equal epochs)."""
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
        The losses of all folds, for each trial.

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


def _probabilities(study: MemberStudy, trials: list[FrozenTrial]) -> tuple[Array, Array] | None:
    """Probabilities of the default trial, and of the trials chosen on the other folds."""
    default, tried = default_of(trials), finished(trials)
    if default is None:
        return None
    chosen = cross_fitted_choice([losses_of(trial) for trial in tried])
    of_default = oof_logits(study, [default] * len(chosen))
    of_chosen = oof_logits(study, [tried[t] for t in chosen])
    if of_default is None or of_chosen is None:
        return None
    return proba_of(of_default), proba_of(of_chosen)


def _as_scored(study: MemberStudy, pair: tuple[Array, Array]) -> tuple[Array, Array]:
    """The probabilities that the objective scores; with a team, the mean with the other members."""
    team = study.objective.team
    if team is None:
        return pair
    n_others, others = team.shape[1], team.sum(axis=1)
    default, tuned = ((one + others) / (n_others + 1) for one in pair)
    return default, tuned


def proba_of(logits: Array) -> Array:
    """The softmax of logits, shape (n, n_classes)."""
    return softmax(logits[:, None].astype(np.float64))[:, 0]


def paired_gain(name: str, default: Array, tuned: Array, train: Manifest) -> Gain:
    """The gain of `tuned` over `default`, probabilities of shape (n_train, n_classes)."""
    losses = [float(log_loss_per_sample(train.labels, p).mean()) for p in (default, tuned)]
    compared = compare_predictions(train.labels, tuned, default, train.groups, metric="log_loss")
    return Gain(name, losses[0], losses[1], compared)
