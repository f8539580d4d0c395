"""The Optuna study of one member and its next trial."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from ensemble_kit.arrays import Array
from ensemble_kit.locks import file_lock
from ensemble_kit.seeding import derive_seed
from ensemble_kit.tune.first_trials import continue_interrupted, enqueue_next, first_trials
from ensemble_kit.tune.objective import Objective
from ensemble_kit.tune.proxy import PROXY, ProxyTrial
from ensemble_kit.tune.pruning import epoch_pruner
from ensemble_kit.tune.samplers import sampler
from ensemble_kit.tune.storage import one_host_at_a_time
from ensemble_kit.tune.study_facts import refuse_other_facts
from ensemble_kit.tune.trials import CONTINUES, VALUES, TrialResult, ended, result_of

TEAM = "@team"


@dataclasses.dataclass(frozen=True, eq=False)
class MemberStudy:
    """A member's study and the objective of its trials.

    Parameters
    ----------
    has_server : bool
        Whether the storage is a database server; other hosts may then run trials of this study.
    planned : sequence of ProxyTrial, optional
        Trials that replace the first trials and those of the sampler.
    """

    objective: Objective
    study: optuna.Study
    storage: optuna.storages.RDBStorage
    has_server: bool = False
    planned: Sequence[ProxyTrial] | None = None

    @property
    def name(self) -> str:
        return self.objective.member.name

    @classmethod
    def opened(
        cls,
        objective: Objective,
        storage: optuna.storages.RDBStorage,
        *,
        has_server: bool = False,
        planned: Sequence[ProxyTrial] | None = None,
    ) -> MemberStudy:
        """The member's study in this storage; a missing one is created.

        Raises
        ------
        DataError
            The study was begun with other data, another recipe or another space.
        """
        member = objective.member
        study = optuna.create_study(
            storage=storage,
            study_name=study_name(member.name, team=objective.team is not None),
            direction="minimize",
            load_if_exists=True,
            pruner=_pruner(objective),
        )
        refuse_other_facts(study, _facts(objective), member.name)
        return cls(objective, study, storage, has_server, planned)

    def prepare(self) -> None:
        """Enqueue interrupted trials."""
        with one_host_at_a_time(self.storage, has_server=self.has_server):
            self._prepare()

    def _prepare(self) -> None:
        if self.planned is None and self.study.user_attrs.get("outside") is None:
            _, outside = first_trials(self.objective.member, self.objective.axes)
            self.study.set_user_attr("outside", list(outside))
        # With a file, the caller holds the run's lock: no other process runs a trial.
        continue_interrupted(self.study, self._progress, dead=lambda _: not self.has_server)

    def _enqueue_next(self) -> None:
        if self.planned is None:
            first, _ = first_trials(self.objective.member, self.objective.axes)
            enqueue_next(self.study, first, self.objective.axes)
            return
        values = {one.origin: one.values for one in self.planned}
        about = {one.origin: {PROXY: one.loss} for one in self.planned}
        enqueue_next(self.study, values, self.objective.axes, about)

    def run_one(self, n_trials: int) -> TrialResult | None:
        """Run the next trial; the sampler depends on the number of trials so far.

        Returns
        -------
        TrialResult or None
            None if other processes have already begun the last of `n_trials`.
        """
        numbers: list[int] = []
        # One process at a time samples, so that the next one takes this trial into account.
        with contextlib.ExitStack() as turn, warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            turn.enter_context(self._turn())
            if len(ended(self.study)) + self.at_work() >= n_trials:
                return None
            self._enqueue_next()

            def run(trial: optuna.Trial) -> float:
                numbers.append(trial.number)
                turn.close()
                return self.objective(trial)

            n_begun = self._n_begun()
            seed = derive_seed(self.objective.seed, self.name, "sampler", n_begun)
            self.study.sampler = sampler(seed, n_begun)
            self.study.optimize(run, n_trials=1)
        return result_of(self.study.trials[numbers[0]])

    def _turn(self) -> contextlib.AbstractContextManager[Any]:
        if self.has_server:
            return one_host_at_a_time(self.storage, has_server=True)
        return file_lock(self.objective.run.path / "tuned" / ".turn")

    def results(self) -> list[TrialResult]:
        """All ended trials, in order."""
        return [result_of(trial) for trial in ended(self.study)]

    def adopt_stale(self) -> None:
        """With a server: enqueue the trials of dead workers again."""
        if self.has_server:
            with one_host_at_a_time(self.storage, has_server=True):
                optuna.storages.fail_stale_trials(self.study)
                continue_interrupted(self.study, self._progress, dead=lambda _: False)

    def at_work(self) -> int:
        """The number of running trials."""
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _n_begun(self) -> int:
        """The number of trials so far; a continued trial counts once, so that sampling is the same."""
        trials = self.study.get_trials(deepcopy=False)
        continued = {trial.user_attrs.get(CONTINUES) for trial in trials}
        begun = [t for t in trials if t.state != TrialState.WAITING and t.number not in continued]
        return len(begun)

    def _progress(self, trial: FrozenTrial) -> int:
        if VALUES not in trial.user_attrs:
            return 0
        member = self.objective.tried(trial.user_attrs)
        files = self.objective.files_of(trial.user_attrs)
        return files.epochs_done(self.objective.folds.n_splits, member.recipe.epochs)


def study_name(member: str, *, team: bool = False) -> str:
    """The name of a member's study in the storage."""
    return f"{member}{TEAM}" if team else member


def oof_logits(study: MemberStudy, chosen: Sequence[FrozenTrial]) -> Array | None:
    """Out-of-fold logits of the training rows; those of fold k are by `chosen[k]`.

    Returns
    -------
    array of float32, shape (n_train, n_classes), or None
        None if the logits of a trial are missing (e.g. on another host) or damaged.
    """
    objective = study.objective
    out = np.full((len(objective.train), objective.train.n_classes), np.nan, dtype=np.float32)
    for fold, trial in enumerate(chosen):
        found = objective.files_of(trial.user_attrs).read(fold)
        if found is None:
            return None
        out[objective.held_out(fold)] = found.logits
    return out


def _pruner(objective: Objective) -> optuna.pruners.BasePruner:
    if not objective.prunes:
        return optuna.pruners.NopPruner()
    return epoch_pruner(objective.member.recipe.epochs)


def _facts(objective: Objective) -> Mapping[str, Any]:
    """The data and settings that all trials of a study share."""
    member = objective.member
    facts = member.facts(member.input_size)
    facts.pop("tuned")
    team = objective.team
    return {
        "member": facts,
        "train": objective.train.digest,
        "folds": objective.folds.digest,
        "seed": objective.seed,
        "space": [_axis(axis) for axis in objective.axes],
        "team": None if team is None else [len(team[0]), float(np.sum(team[:, :, 0]))],
    }


def _axis(axis: Any) -> dict[str, Any]:
    values = dataclasses.asdict(axis)
    return {**values, "choices": list(values["choices"])}
