"""The first trials of a study, and the continuation of interrupted trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ensemble_kit.members.member import Member
from ensemble_kit.tune.proxy import PROXY
from ensemble_kit.tune.space import Dimension, own_values
from ensemble_kit.tune.trials import CONTINUES, DEFAULT, ORIGIN, OUTCOME, OVERRIDES

# Settings of published systems: learning rate, batch size, and the head's rate if it differs.
PUBLISHED: dict[str, dict[str, Any]] = {
    "1e-3 with 256": {"learning_rate": 1e-3, "batch_size": 256},
    "1e-4 with 256": {"learning_rate": 1e-4, "batch_size": 256},
    "1e-3 with 32": {"learning_rate": 1e-3, "batch_size": 32},
    "1e-4, head 1e-3, with 32": {"learning_rate": 1e-4, "batch_size": 32, "head_rate": 10.0},
}
# Most interruptions of a trial in a row without a finished epoch; the default has no limit.
MOST_INTERRUPTIONS = 5
PROGRESS, N_FUTILE = "progress", "in_vain"


def first_trials(
    member: Member, axes: Sequence[Dimension]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Name -> values of the first trials, and the names of those outside of the space.

    The first trial has the member's own settings. A setting of a published system that is not in
    the space is an override of that trial.
    """
    own, by_name = own_values(member), {axis.name: axis for axis in axes}
    planned, outside = {DEFAULT: {name: own[name] for name in by_name}}, []
    for origin, values in PUBLISHED.items():
        full = {**{name: own[name] for name in by_name}, **values}
        if not all(axis.holds(full[name]) for name, axis in by_name.items()):
            outside.append(origin)
        elif full not in planned.values() and by_name.keys() & values.keys():
            planned[origin] = full
    return planned, tuple(outside)


def enqueue_next(
    study: optuna.Study,
    planned: Mapping[str, Mapping[str, Any]],
    axes: Sequence[Dimension],
    about: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Enqueue the next planned trial, unless another trial waits.

    Interrupted trials are continued before the next planned one begins.

    Parameters
    ----------
    planned : mapping of origin to values
    about : mapping of origin to user attributes, optional
    """
    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):
        return
    there = {trial.user_attrs.get(ORIGIN) for trial in trials}
    origin = next((name for name in planned if name not in there), None)
    if origin is None:
        return
    values, names = planned[origin], {axis.name for axis in axes}
    study.enqueue_trial(
        {axis.parameter: axis.coordinate(values[axis.name]) for axis in axes},
        user_attrs={
            ORIGIN: origin,
            OVERRIDES: {k: v for k, v in values.items() if k not in names},
            **(about or {}).get(origin, {}),
        },
        skip_if_exists=False,
    )


def continue_interrupted(
    study: optuna.Study,
    progress: Callable[[FrozenTrial], int],
    *,
    dead: Callable[[FrozenTrial], bool],
) -> None:
    """Enqueue interrupted trials again, with the same values.

    Parameters
    ----------
    progress : callable
        Returns the number of stored epochs of a trial.
    dead : callable
        Returns whether a trial in the state RUNNING has no live process.
    """
    trials = study.get_trials(deepcopy=False)
    continued = {trial.user_attrs.get(CONTINUES) for trial in trials}
    for trial in trials:
        if trial.state == TrialState.RUNNING and dead(trial):
            study.tell(trial.number, state=TrialState.FAIL)
        elif trial.state != TrialState.FAIL or OUTCOME in trial.user_attrs:
            continue
        if trial.number in continued:
            continue
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        attrs = {k: v for k, v in trial.user_attrs.items() if k in {ORIGIN, OVERRIDES, PROXY}}
        now, before = progress(trial), trial.user_attrs.get(PROGRESS, 0)
        n_futile = trial.user_attrs.get(N_FUTILE, 0) + 1 if now <= before else 0
        if params and (n_futile < MOST_INTERRUPTIONS or attrs.get(ORIGIN) == DEFAULT):
            again = {CONTINUES: trial.number, PROGRESS: now, N_FUTILE: n_futile}
            study.enqueue_trial(params, user_attrs={**attrs, **again}, skip_if_exists=False)
