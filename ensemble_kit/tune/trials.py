"""The trials of a study: their outcomes, their losses, and the best one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ensemble_kit.tune.losses import FoldLoss

# User attributes of a trial. `origin`: name of a first trial. `outcome`: how the trial ended.
ORIGIN, OUTCOME, CONTINUES, OVERRIDES = "origin", "outcome", "continues", "overrides"
VALUES, IMAGES, SECONDS, FOLD = "values", "epoch_images", "seconds", "fold-"
DEFAULT = "default"
# Outcomes: all folds trained; stopped early; no finite loss; memory ran out.
FINISHED, PRUNED, DIVERGED, OUT_OF_MEMORY = "whole", "pruned", "diverged", "out-of-memory"


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """An ended trial.

    Parameters
    ----------
    number : int
    values : dict
        The tuned settings.
    loss : float or None
        Log loss over all held-out images; None unless all folds were trained.
    outcome : {"whole", "pruned", "diverged", "out-of-memory"}
    origin : str
        "default" for the member's own recipe, a name for the other first trials, "" for trials of
        the sampler.
    epoch_images : int
        Number of training images, counted once per epoch.
    seconds : float
    """

    number: int
    values: dict[str, Any]
    loss: float | None
    outcome: str
    origin: str
    epoch_images: int
    seconds: float


def result_of(trial: FrozenTrial) -> TrialResult:
    """An ended trial as plain values."""
    attrs = trial.user_attrs
    return TrialResult(
        trial.number,
        dict(attrs.get(VALUES, {})),
        trial.value if attrs[OUTCOME] == FINISHED else None,
        attrs[OUTCOME],
        attrs.get(ORIGIN, ""),
        int(attrs.get(IMAGES, 0)),
        float(attrs.get(SECONDS, 0.0)),
    )


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The ended trials: those with an outcome, which interrupted trials do not have."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if OUTCOME in trial.user_attrs]


def finished(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials with all folds trained."""
    return [trial for trial in trials if trial.user_attrs.get(OUTCOME) == FINISHED]


def best_of(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """Of the trials with all folds trained, the first one with the lowest loss."""
    return min(finished(trials), key=lambda t: (t.value, t.number), default=None)


def default_of(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The finished trial with the member's own recipe."""
    return next((t for t in finished(trials) if t.user_attrs.get(ORIGIN) == DEFAULT), None)


def losses_of(trial: FrozenTrial) -> list[FoldLoss]:
    """The losses of a trial's folds, from fold 0 on."""
    found: list[FoldLoss] = []
    while (key := f"{FOLD}{len(found)}") in trial.user_attrs:
        found.append(FoldLoss.from_json(trial.user_attrs[key]))
    return found


def known_values(trials: Sequence[FrozenTrial]) -> list[float]:
    """The recorded losses, without those of trials that could not train."""
    return [
        float(t.value)
        for t in trials
        if t.value is not None and t.user_attrs.get(OUTCOME) in {FINISHED, PRUNED}
    ]
