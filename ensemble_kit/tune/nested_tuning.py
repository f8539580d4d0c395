"""Nested tuning: each fold is scored with settings that were tuned on the other folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.folds import Folds
from ensemble_kit.tune.outcome import ENSEMBLE, Gain, paired_gain, proba_of
from ensemble_kit.tune.plan import TunePlan
from ensemble_kit.tune.trial_loop import TimeIsUp, is_late
from ensemble_kit.tune.trials import DEFAULT, ORIGIN, VALUES, best_of, ended
from ensemble_kit.tune.tuning import Listener, Progress, Tuning, WorkerPool


def nested_gains(
    tuning: Tuning,
    n_trials: int,
    deadline: float | None,
    listener: Listener,
    worker_pool: WorkerPool | None,
) -> tuple[Gain, ...]:
    """Gains of the members and of their mean; each fold has settings tuned on the other folds.

    Returns
    -------
    tuple of Gain
        Empty if the time ended before. The same call resumes the tuning.
    """
    plan = tuning.plan
    shape = (len(plan.train), plan.train.n_classes)
    default = {member.name: np.empty(shape) for member in plan.members}
    tuned = {member.name: np.empty(shape) for member in plan.members}
    for fold in range(plan.folds.n_splits):
        inner = Tuning(_without(plan, fold), n_trials, deadline, _of_fold(listener, fold))
        inner.run_all(worker_pool)
        if is_late(deadline):
            return ()
        for name, study in tuning.studies.items():
            objective, best = study.objective, best_of(ended(inner.studies[name].study))
            chosen = {ORIGIN: DEFAULT} if best is None else best.user_attrs
            rows = objective.held_out(fold)
            try:
                default[name][rows] = proba_of(objective.fold_logits({ORIGIN: DEFAULT}, fold))
                tuned[name][rows] = proba_of(objective.fold_logits(_settings(chosen), fold))
            except TimeIsUp:
                return ()
    return _gains(default, tuned, plan)


def _settings(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: attrs[key] for key in (ORIGIN, VALUES) if key in attrs}


def _gains(default: dict[str, Array], tuned: dict[str, Array], plan: TunePlan) -> tuple[Gain, ...]:
    gains = [paired_gain(name, default[name], tuned[name], plan.train) for name in default]
    if len(gains) > 1:
        means = [np.mean([*one.values()], axis=0) for one in (default, tuned)]
        gains.append(paired_gain(ENSEMBLE, means[0], means[1], plan.train))
    return tuple(gains)


def _without(plan: TunePlan, fold: int) -> TunePlan:
    """The plan for the other folds, renumbered, with a separate folder for the studies."""
    of = plan.folds.of(plan.train)
    rows = of != fold
    train = plan.train.take(rows)
    renumbered = np.where(of > fold, of - 1, of)[rows]
    return dataclasses.replace(
        plan,
        train=train,
        folds=Folds(train.sample_ids, renumbered, plan.folds.split_by),
        run_path=plan.run_path / "tuned" / "nested" / f"fold-{fold}",
        keeps_networks=False,
        images=plan.images or plan.train,
    )


def _of_fold(listener: Listener, fold: int) -> Listener:
    """A listener that adds the fold to the names of the studies."""

    def named(name: str) -> str:
        return f"{name} without fold {fold}"

    def forward(progress: Progress) -> None:
        latest = progress.latest and (named(progress.latest[0]), progress.latest[1])
        results = {named(name): trials for name, trials in progress.results.items()}
        at_work = tuple(named(name) for name in progress.at_work)
        listener(dataclasses.replace(progress, results=results, latest=latest, at_work=at_work))

    return forward
