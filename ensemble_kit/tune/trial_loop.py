"""The loop over trials. Several processes and hosts can run it on the same studies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from ensemble_kit.tune.member_study import MemberStudy
from ensemble_kit.tune.plan import TunePlan
from ensemble_kit.tune.schedule import next_member
from ensemble_kit.tune.trials import TrialResult

WAIT_SECONDS = 1.0


class TimeIsUp(BaseException):
    """Ends a trial after an epoch; the next call resumes the trial."""


def opened(plan: TunePlan, deadline: float | None) -> dict[str, MemberStudy]:
    """The studies of a plan; after the deadline, trials end with their epoch."""

    def after_epoch() -> None:
        if is_late(deadline):
            raise TimeIsUp

    return plan.opened(after_epoch)


def is_late(deadline: float | None) -> bool:
    """Whether the deadline (`time.monotonic`) has passed; None is no deadline."""
    return deadline is not None and time.monotonic() >= deadline


def run_trials(
    studies: Mapping[str, MemberStudy],
    n_trials: int,
    deadline: float | None,
    *,
    before: Callable[[str], None] = lambda _: None,
    after: Callable[[str, TrialResult], None] = lambda _, __: None,
) -> None:
    """Run trials until each member has `n_trials` or the time is up.

    With a database server, this process waits for the trials of other hosts. If a host dies, its
    trial is continued here.

    Raises
    ------
    TimeIsUp
        The deadline passed within a trial.
    """
    while not is_late(deadline):
        for study in studies.values():
            study.adopt_stale()
        results, running = results_of(studies), running_of(studies)
        name = next_member(results, n_trials, by_gain=deadline is not None, running=running)
        if name is not None:
            before(name)
            if (result := studies[name].run_one(n_trials)) is not None:
                after(name, result)
        elif any(studies[busy].has_server for busy in running):
            time.sleep(WAIT_SECONDS)
        else:
            return


def results_of(studies: Mapping[str, MemberStudy]) -> dict[str, Sequence[TrialResult]]:
    """The ended trials of each study."""
    return {name: study.results() for name, study in studies.items()}


def running_of(studies: Mapping[str, MemberStudy]) -> dict[str, int]:
    """The number of running trials, for the studies that have any."""
    found = {name: study.at_work() for name, study in studies.items()}
    return {name: n for name, n in found.items() if n}
