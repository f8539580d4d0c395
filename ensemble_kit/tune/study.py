"""A member's study: Optuna over learning rate and batch size, on whole groups of the training rows.

The test part is not reachable from here: only training rows are handed on. Resumable; a trial that
was cut off is tried again once with the same values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from ensemble_kit.errors import DataError, JobsFailedError, first_few
from ensemble_kit.files import cache_folder
from ensemble_kit.folds.validation_split import watched_slice
from ensemble_kit.images.tiles.build import Tiles, build_tile_sets
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.fold_files import changed_keys
from ensemble_kit.members.jobs.job import CROP
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.pretrained import require_first_weights
from ensemble_kit.members.preflight import check_members
from ensemble_kit.members.training.fit import Fit, Rows
from ensemble_kit.members.training.precision import choose_device
from ensemble_kit.members.training.predict import watched_figures
from ensemble_kit.members.training.state import Training
from ensemble_kit.run import Run
from ensemble_kit.seeding import derive_seed
from ensemble_kit.tune.best import write_best
from ensemble_kit.tune.storage import (
    FAILED,
    RECIPE,
    database,
    ended,
    finished,
    open_study,
    retry_cut_off,
    study_path,
)

WATCHED_SHARE = 0.25
RATES = (1e-5, 1e-1)
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
TUNED = ("learning_rate", "batch_size")
METRIC = "log loss on whole held-out groups of the training rows"
# What the trials of a study have in common besides data and recipe: their losses are compared.
JUDGED = "as the member predicts"


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """One finished trial: its values and its log loss (nats); None where it was pruned or failed."""

    number: int
    learning_rate: float
    batch_size: int
    value: float | None
    state: str


@dataclasses.dataclass(frozen=True)
class TuningResult:
    """All trials of a study, the best one's number, and what must be said of how they were judged."""

    member: str
    trials: tuple[TrialResult, ...]
    best: int
    notes: tuple[str, ...] = ()

    @property
    def best_trial(self) -> TrialResult:
        return next(t for t in self.trials if t.number == self.best)


def tune_member(
    member: Member,
    train: Manifest,
    run: Run,
    *,
    n_trials: int = 10,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    split_by: str = "group",
    after_trial: Callable[[TrialResult], None] | None = None,
    cache: Path | None = None,
) -> TuningResult:
    """Tune learning rate and batch size until the study holds `n_trials` finished trials.

    The first trial is the recipe as it stands, so that the best is never worse than it on the
    rows that judge. Trials are judged as the member predicts: at its `eval_size`, over the poses of
    its `tta`, which are computed once, at the end of a trial. The best values are kept in the run
    folder for the next training.

    Parameters
    ----------
    member : Member
    train : Manifest
        Training rows; a quarter of them, whole groups of every class where they allow it, judge
        the trials.
    run : Run
        The study lies under `tuned/`, as SQLite.
    n_trials : int
        Finished trials in all, those of earlier calls included.

    Returns
    -------
    TuningResult

    Raises
    ------
    DataError
        Too few groups to hold any out, or a study of other data or another recipe.
    EnvironmentFault
        The disk is full; the trials that are stored stay.
    IntegrityError
        The study's file is damaged.
    JobsFailedError
        No trial ended with a finite loss.
    """
    train = train.part("train")
    parted, lacks = watched_slice(
        train, share=WATCHED_SHARE, seed=derive_seed(seed, "tune"), by=split_by
    )
    check_members([member], train)
    require_first_weights([member])
    specs = [member.tile_spec, member.eval_spec]
    tiles = build_tile_sets(train, specs, cache_dir=cache or cache_folder(), crop=CROP)
    setup = _Setup(
        member,
        tiles[member.tile_spec],
        tiles[member.eval_spec],
        parted,
        choose_device(device),
        precision,
        seed,
    )
    path = study_path(run, member.name)
    with database(path):
        study = _open_study(path, member, setup.facts(train), len(parted.part("train")))
        as_it_stands = {name: getattr(member.recipe, name) for name in TUNED}
        retry_cut_off(study, as_it_stands)
        # The bound keeps a hopeless study from going on for ever.
        while len(finished(study)) < n_trials and len(ended(study)) < 3 * n_trials:
            number = _one_trial(study, setup)
            if after_trial:
                after_trial(_result(study.trials[number]))
    notes = tuple(f"Trials were judged on rows that hold {what}." for what in lacks)
    with database(path):
        return _keep_best(study, run, member, train, notes)


@dataclasses.dataclass(frozen=True, eq=False)
class _Setup:
    member: Member
    tiles: Tiles
    eval_tiles: Tiles
    parted: Manifest
    device: torch.device
    precision: str
    seed: int

    def facts(self, train: Manifest) -> dict[str, Any]:
        facts = self.member.facts(self.tiles.image_size)
        facts.pop("tuned")
        for tuned in TUNED:
            facts["recipe"].pop(tuned)
        return {"member": facts, "train": train.digest, "seed": self.seed, "judged": JUDGED}

    def objective(self, trial: optuna.Trial) -> float:
        own = self.member.recipe
        sizes = trial.study.user_attrs["batch_sizes"]  # fixed when the study began
        values = {
            "learning_rate": trial.suggest_float("learning_rate", *RATES, log=True),
            "batch_size": trial.suggest_categorical("batch_size", sizes),
        }
        recipe = own.model_copy(update={**values, "select_on": "none", "patience": 0})
        learning, watched = self.parted.part("train"), self.parted.part("test")
        rows = Rows(
            self.tiles.rows(learning.sample_ids),
            learning.labels,
            self.tiles.rows(watched.sample_ids),
            watched.labels,
        )
        fit = Fit.start(
            self.member.model_copy(update={"recipe": recipe}),
            self.tiles,
            self.parted.n_classes,
            device=self.device,
            precision=self.precision,
            seed=derive_seed(self.seed, "tune", self.member.name, self.member.seed),
            eval_tiles=self.eval_tiles,
        )

        def after_epoch(training: Training) -> None:
            trial.report(training.history[-1]["val_log_loss"], training.epoch)
            # The recipe as it stands is what the best is held against: it is tried to its end.
            if trial.should_prune() and not trial.user_attrs.get(RECIPE):
                raise optuna.TrialPruned

        fit.run(rows, after_epoch)
        # Epochs are watched, and pruned, by one pose; a trial is judged as the member predicts.
        return watched_figures(fit.logits(rows.watched), rows.watched_labels)["log_loss"]


def _one_trial(study: optuna.Study, setup: _Setup) -> int:
    """Ask, train and tell; the trial's number. A trial that is cut off, by Ctrl-C too, is told nothing: it is tried again."""
    trial = study.ask()
    try:
        value = setup.objective(trial)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except (JobsFailedError, torch.OutOfMemoryError) as error:
        trial.set_user_attr(FAILED, str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)
    return trial.number


def _open_study(path: Path, member: Member, facts: dict[str, Any], n_learning: int) -> optuna.Study:
    n_warmup = max(member.recipe.epochs // 3, 1)
    study = open_study(
        path, optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=n_warmup)
    )
    known = study.user_attrs.get("facts")
    if known is None:
        largest = max(n_learning // 4, 2)
        sizes = {b for b in BATCH_SIZES if b <= largest} | {member.recipe.batch_size}
        study.set_user_attr("batch_sizes", sorted(sizes))
        study.set_user_attr("facts", facts)
    elif changes := changed_keys(known, facts):
        raise DataError(
            "A study goes on only with the data and recipe that it began with",
            f"'{path}' differs in {first_few(changes)}",
            "Delete that file to begin anew, or use another --run folder",
        )
    seed = derive_seed(facts["seed"], "tpe", len(study.trials)) % 2**32
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    return study


def _result(trial: optuna.trial.FrozenTrial) -> TrialResult:
    value = trial.value if trial.state == TrialState.COMPLETE else None
    rate, batch = trial.params.get("learning_rate", float("nan")), trial.params.get("batch_size", 0)
    return TrialResult(trial.number, rate, batch, value, trial.state.name.lower())


def _keep_best(
    study: optuna.Study, run: Run, member: Member, train: Manifest, notes: tuple[str, ...]
) -> TuningResult:
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if not complete:
        raise JobsFailedError(
            "A study needs one trial that ends with a finite loss",
            f"none of {len(study.trials)} did",
            "Lower the recipe's learning_rate and look at 'ensemble-kit data check'",
        )
    best = min(complete, key=lambda t: (t.value, t.number))
    write_best(
        run,
        member.name,
        {"learning_rate": best.params["learning_rate"], "batch_size": best.params["batch_size"]},
        {
            "metric": METRIC,
            "value": best.value,
            "trial": best.number,
            "n_trials": len(study.trials),
            "train": train.digest,
            "notes": notes,
        },
    )
    trials = tuple(_result(t) for t in study.trials if t.state.is_finished())
    return TuningResult(member.name, trials, best.number, notes)
