"""Finished trials as a library of models for greedy selection.

The selected trials become members; their folds are already trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial

from ensemble_kit.arrays import Array
from ensemble_kit.combiners.weights.greedy_selection import GreedySelection
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fitted_proba
from ensemble_kit.images.digests import with_digests
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.resume import newest_record, save_resume
from ensemble_kit.members.member import Member
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run
from ensemble_kit.tune.best import METRIC, write_best
from ensemble_kit.tune.member_study import MemberStudy, oof_logits
from ensemble_kit.tune.trials import DEFAULT, ORIGIN, VALUES, ended, finished


@dataclasses.dataclass(frozen=True)
class Pick:
    """A trial that greedy selection selected.

    Parameters
    ----------
    member : str
        The tuned member.
    name : str
        Name of the trial as a member of the run; the default trial has the member's name.
    trial : int
        Number of the trial.
    weight : float
        Weight in the mean of the probabilities.
    """

    member: str
    name: str
    trial: int
    weight: float


@dataclasses.dataclass(frozen=True, eq=False)
class Library:
    """All finished trials of some studies, and their out-of-fold predictions.

    Parameters
    ----------
    trials : sequence of (study, trial)
    table : Predictions
        One member per trial; training rows only.
    """

    trials: Sequence[tuple[MemberStudy, FrozenTrial]]
    table: Predictions

    @classmethod
    def of(cls, studies: Mapping[str, MemberStudy], train: Manifest) -> Library | None:
        """The trials with all folds trained and stored logits; None if there are none.

        Examples
        --------
        >>> Library.of({}, None) is None
        True
        """
        found: list[tuple[MemberStudy, FrozenTrial]] = []
        logits: list[Array] = []
        for study in studies.values():
            for trial in finished(ended(study.study)):
                own = oof_logits(study, [trial] * study.objective.folds.n_splits)
                if own is not None:
                    found.append((study, trial))
                    logits.append(own)
        if not found:
            return None
        names = [_name(study.name, trial) for study, trial in found]
        table = Predictions.from_arrays(
            dict(zip(names, logits, strict=True)),
            train.labels,
            sample_ids=train.sample_ids,
            groups=train.groups,
            class_names=train.class_names,
            fold=found[0][0].objective.folds.of(train),
            split_by=found[0][0].objective.folds.split_by,
        )
        return cls(found, table)

    def proba(self) -> Array:
        """Probabilities of the training rows, each fold with weights selected on the other folds.

        References
        ----------
        Levesque, J.-C., Gagne, C., & Sabourin, R. (2016). Bayesian hyperparameter optimization for
        ensemble learning. UAI.
        """
        return cross_fitted_proba(GreedySelection(), self.table)

    def picks(self) -> list[Pick]:
        """The trials that greedy selection selects on all folds, by decreasing weight."""
        table = self.table
        fitted = GreedySelection().fit(table.logits, table.labels, table.groups)
        order = np.argsort(-fitted.weights_, kind="stable")
        return [
            Pick(
                self.trials[i][0].name,
                table.member_names[i],
                self.trials[i][1].number,
                float(fitted.weights_[i]),
            )
            for i in order.tolist()
            if fitted.weights_[i] > 0
        ]


def keep_picks(run: Run, library: Library, picks: Sequence[Pick], manifest: Manifest) -> None:
    """Make members of the selected trials, and remove the networks of all others.

    The values and networks of a selected trial are stored under its name. The next training uses
    these networks and only computes predictions.

    Parameters
    ----------
    manifest : Manifest
        Training and test rows of the next training.
    """
    if "sha256" not in manifest.table:
        manifest = with_digests(manifest)
    by_name = {pick.name: pick for pick in picks}
    for study, trial in library.trials:
        name = _name(study.name, trial)
        if name in by_name and trial.user_attrs.get(ORIGIN) != DEFAULT:
            about = {
                "metric": METRIC,
                "trial": trial.number,
                "n_trials": len(ended(study.study)),
                "value": trial.value,
                "weight": by_name[name].weight,
            }
            write_best(run, name, dict(trial.user_attrs[VALUES]), about)
            _place_networks(run, study, trial, name, manifest)
        study.objective.files_of(trial.user_attrs).drop_networks()


def _place_networks(
    run: Run, study: MemberStudy, trial: FrozenTrial, name: str, manifest: Manifest
) -> None:
    objective = study.objective
    if objective.member.recipe.select_on == "held-out-fold":
        return  # trials do not select an epoch, but the member does
    tried = objective.tried(trial.user_attrs)
    member = Member(**{**tried.model_dump(), "name": name, "tuned": True})
    for fold in range(objective.folds.n_splits):
        state = objective.files_of(trial.user_attrs).network(fold)
        job = Job(
            run, member, fold, manifest, objective.folds, objective.tiles[member.tile_spec],
            objective.device, objective.precision, objective.seed,
        )  # fmt: skip
        is_there = (job.folder / "fold.json").is_file() or newest_record(job.folder) is not None
        if state is not None and not is_there:
            save_resume(job.folder, state, job.begun_of)


def _name(member: str, trial: FrozenTrial) -> str:
    is_default = trial.user_attrs.get(ORIGIN) == DEFAULT
    return member if is_default else f"{member}-trial{trial.number}"
