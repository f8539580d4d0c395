"""Tuning by a proxy: cheap trials in a separate study, then a few of them trained in full."""

from __future__ import annotations

import dataclasses

from ensemble_kit.run import Run
from ensemble_kit.tune.plan import TunePlan
from ensemble_kit.tune.proxy import Proxy, trials_to_check
from ensemble_kit.tune.trials import ended
from ensemble_kit.tune.tuning import Listener, Tuning, WorkerPool

FOLDER = "proxy"


def tune_by_proxy(
    plan: TunePlan,
    proxy: Proxy,
    n_trials: int,
    deadline: float | None,
    listener: Listener,
    worker_pool: WorkerPool | None,
) -> Tuning:
    """Run `n_trials` cheap trials of each member in `tuned/proxy`, then train a few of them in full.

    Returns
    -------
    Tuning
        The tuning with the full trainings.
    """
    folder = Run(plan.run_path / "tuned" / FOLDER)
    train, folds = proxy.part(plan.train, plan.folds, plan.seed)
    cheap = dataclasses.replace(
        plan,
        members=tuple(proxy.member(member) for member in plan.members),
        train=train,
        folds=folds,
        run_path=folder.path,
        keeps_networks=False,
        images=plan.images or plan.train,
    )
    first = Tuning(cheap, n_trials, deadline, listener)
    first.run_all(worker_pool)
    planned = {name: trials_to_check(ended(s.study)) for name, s in first.studies.items()}
    full = dataclasses.replace(plan, planned=planned, proxy=proxy, prunes=False)
    n_full = max(len(trials) for trials in planned.values())
    second = Tuning(full, n_full, deadline, listener)
    second.run_all(worker_pool)
    return second
