"""One trial: a member with the trial's settings is trained fold by fold, until it is pruned.

Each fold is trained as by `train-members`, on training rows only.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import torch

from ensemble_kit.arrays import Array
from ensemble_kit.errors import JobsFailedError
from ensemble_kit.faults import chain, is_out_of_memory
from ensemble_kit.folds import Folds
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.job import TRAINER
from ensemble_kit.members.jobs.job_rows import Parts, parts_of
from ensemble_kit.members.jobs.resume import load_resume, save_resume
from ensemble_kit.members.member import Member
from ensemble_kit.members.training.fit import Fit
from ensemble_kit.members.training.out_of_memory import release_cached_memory
from ensemble_kit.members.training.state import Training
from ensemble_kit.run import Run
from ensemble_kit.seeding import derive_seed
from ensemble_kit.tune.losses import FoldLoss, fold_loss, overall
from ensemble_kit.tune.pruning import excess, is_behind, is_worse, value_of_pruned
from ensemble_kit.tune.space import Dimension, own_values, with_values
from ensemble_kit.tune.trial_files import FoldResult, TrialFiles
from ensemble_kit.tune.trials import (
    DEFAULT,
    DIVERGED,
    FINISHED,
    FOLD,
    IMAGES,
    ORIGIN,
    OUT_OF_MEMORY,
    OUTCOME,
    OVERRIDES,
    PRUNED,
    SECONDS,
    VALUES,
    best_of,
    ended,
    known_values,
    losses_of,
)

# A training state is stored after an epoch if the last one is older than this.
SAVE_SECONDS = 5.0
MEMORY = "memory"  # constraint of a trial: above 0 if memory ran out


class EarlyStop(Exception):
    """The percentile rule ends a trial within its first fold."""


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """Trains and scores the trials of one member.

    Parameters
    ----------
    train : Manifest
        Training rows only.
    axes : tuple of Dimension
    team : array, shape (n_train, n_others, n_classes), optional
        Out-of-fold probabilities of the other members; trials are then scored by the mean with them.
    prunes : bool
        Stop trials that are worse than the best one.
    keeps_networks : bool
        Store the network of each fold of finished trials beside its logits.
    on_epoch : callable
        Called after each epoch; may raise to stop.
    """

    member: Member
    train: Manifest
    folds: Folds
    run: Run
    axes: tuple[Dimension, ...]
    tiles: dict[TileSpec, Tiles]
    device: torch.device
    precision: str = "auto"
    seed: int = 0
    team: Array | None = None
    prunes: bool = True
    keeps_networks: bool = False
    on_epoch: Callable[[], None] = lambda: None

    def __call__(self, trial: optuna.Trial) -> float:
        """The loss for the sampler; the trial's attributes hold its outcome."""
        values = self._suggested(trial)
        trial.set_user_attr(VALUES, values)
        began, files = time.perf_counter(), self.files_of(trial.user_attrs)
        cost = {IMAGES: 0, SECONDS: 0.0}
        try:
            value, outcome = self._over_folds(trial, files, cost)
            memory = -1.0
        except JobsFailedError:
            value, outcome, memory = self._worst_loss(trial.study), DIVERGED, -1.0
        except Exception as error:
            if not any(is_out_of_memory(link) for link in chain(error)):
                raise
            release_cached_memory(self.device)
            value, outcome, memory = self._worst_loss(trial.study), OUT_OF_MEMORY, 1.0
        files.drop_states()
        if outcome != FINISHED:
            files.drop_networks()
        trial.set_constraint(MEMORY, memory)
        trial.set_user_attr(IMAGES, cost[IMAGES])
        trial.set_user_attr(SECONDS, max(cost[SECONDS], time.perf_counter() - began))
        trial.set_user_attr(OUTCOME, outcome)
        return value

    def tried(self, attrs: dict[str, Any]) -> Member:
        """The member with the settings of a trial; the default trial has the member's own.

        The epoch is not selected on the held-out fold, because that fold scores the trial.
        """
        is_default = attrs.get(ORIGIN) == DEFAULT
        member = self.member if is_default else with_values(self.member, attrs[VALUES])
        if member.recipe.select_on != "held-out-fold":
            return member
        blind = member.recipe.model_copy(update={"select_on": "none", "patience": 0})
        return member.model_copy(update={"recipe": blind})

    def files_of(self, attrs: dict[str, Any]) -> TrialFiles:
        """The files of a trial, named by everything that decides its logits."""
        member = self.tried(attrs)
        made_of = {
            "member": member.facts(member.input_size),
            "train": self.train.digest,
            "folds": self.folds.digest,
            "seed": self.seed,
            "trainer": TRAINER,
        }
        return TrialFiles.of(self.run, self.member.name, made_of)

    def _suggested(self, trial: optuna.Trial) -> dict[str, Any]:
        values = {axis.name: axis.suggested(trial) for axis in self.axes}
        if trial.user_attrs.get(ORIGIN) == DEFAULT:
            own = own_values(self.member)
            return {name: _plain(own[name]) for name in values}
        return {**values, **trial.user_attrs.get(OVERRIDES, {})}

    def _over_folds(
        self, trial: optuna.Trial, files: TrialFiles, cost: dict[str, Any]
    ) -> tuple[float, str]:
        earlier, losses = ended(trial.study), list[FoldLoss]()
        best, others = best_of(earlier), [losses_of(one) for one in earlier]
        may_stop = self.prunes and trial.user_attrs.get(ORIGIN) != DEFAULT and best is not None
        member = self.tried(trial.user_attrs)
        for fold in range(self.folds.n_splits):
            parts = self._parts(member, fold)
            listener = _Epochs(trial, fold, member.recipe.epochs, may_stop and self.team is None)
            result = files.read(fold)
            try:
                if result is None:
                    result = self._trained(member, fold, parts, files, listener)
                    files.write(fold, result)
                else:
                    listener.replay(result.epochs)
            except EarlyStop:
                cost[IMAGES] += listener.epochs_seen * len(parts.fit.train)
                assert best is not None
                return self._pruned(trial, listener.worse_by(best)), PRUNED
            cost[IMAGES] += result.images
            cost[SECONDS] += result.seconds
            losses.append(self._loss(result.logits, fold))
            trial.set_user_attr(f"{FOLD}{fold}", losses[-1].to_json())
            if not may_stop or best is None or fold == self.folds.n_splits - 1:
                continue
            incumbent = losses_of(best)
            if is_worse(losses, incumbent) or is_behind(losses, incumbent, others):
                return self._pruned(trial, excess(losses, incumbent)), PRUNED
        return overall(losses), FINISHED

    def _trained(
        self, member: Member, fold: int, parts: Parts, files: TrialFiles, listener: _Epochs | None
    ) -> FoldResult:
        began, folder = time.perf_counter(), files.state_folder(fold)
        state = load_resume(folder, files.made_of, lambda _: None)
        earlier = float(state.get("seconds", 0.0)) if state else 0.0
        fit = Fit.start(
            member,
            self.tiles[member.tile_spec],
            self.train.n_classes,
            device=self.device,
            precision=self.precision,
            seed=derive_seed(self.seed, member.name, member.seed, fold),
            eval_tiles=self.tiles[member.eval_spec],
            state=state,
        )
        saved = [time.perf_counter()]
        if listener is not None:
            listener.replay(tuple(row["val_log_loss"] for row in fit.training.history))

        def after_epoch(training: Training) -> None:
            now = time.perf_counter()
            is_last = training.epoch >= member.recipe.epochs
            if now - saved[0] >= SAVE_SECONDS and not is_last:
                so_far = {"seconds": earlier + now - began}
                save_resume(folder, training.state() | so_far, files.made_of)
                saved[0] = now
            if listener is not None:
                listener.report(training.epoch - 1, training.history[-1]["val_log_loss"])
            self.on_epoch()

        fit.run(parts.fit, after_epoch)
        history = fit.training.history
        if self.keeps_networks:
            files.keep_network(fold, fit.training.state())
        return FoldResult(
            fit.logits(parts.held_out),
            tuple(float(row["val_log_loss"]) for row in history),
            len(history) * len(parts.fit.train),
            earlier + time.perf_counter() - began,
        )

    def _parts(self, member: Member, fold: int) -> Parts:
        tiles = self.tiles[member.tile_spec]
        return parts_of(member, self.train, self.folds, fold, tiles, seed=self.seed)

    def fold_logits(self, attrs: dict[str, Any], fold: int) -> Array:
        """Logits of one fold by a trial's settings; if they are not stored, the fold is trained.

        Returns
        -------
        array of float32, shape (n_held_out, n_classes)
        """
        member, files = self.tried(attrs), self.files_of(attrs)
        result = files.read(fold)
        if result is None:
            result = self._trained(member, fold, self._parts(member, fold), files, None)
            files.write(fold, result)
        return result.logits

    def held_out(self, fold: int) -> npt.NDArray[np.bool_]:
        """Mask of the training rows that a fold holds out."""
        return np.asarray(self.folds.of(self.train) == fold)

    def _loss(self, logits: Array, fold: int) -> FoldLoss:
        rows = self.held_out(fold)
        team = None if self.team is None else self.team[rows]
        return fold_loss(logits, self.train.labels[rows], self.train.groups[rows], team)

    def _pruned(self, trial: optuna.Trial, worse_by: float) -> float:
        trials = ended(trial.study)
        best = best_of(trials)
        assert best is not None
        assert best.value is not None
        return value_of_pruned(worse_by, best.value, known_values(trials))

    def _worst_loss(self, study: optuna.Study) -> float:
        """The loss recorded for a trial without predictions: chance, or the worst so far."""
        return max([float(np.log(self.train.n_classes)), *known_values(ended(study))])


class _Epochs:
    """Reports the loss of each epoch and applies the percentile rule within the first fold."""

    def __init__(self, trial: optuna.Trial, fold: int, epochs: int, may_stop: bool) -> None:
        self._trial, self._first = trial, fold * epochs
        self._may_stop = may_stop and fold == 0
        self._losses: list[float] = []

    @property
    def epochs_seen(self) -> int:
        return len(self._losses)

    def replay(self, losses: tuple[float, ...]) -> None:
        """Report epochs that are already done."""
        for epoch, loss in enumerate(losses):
            self.report(epoch, loss)

    def report(self, epoch: int, loss: float) -> None:
        self._losses.append(loss)
        self._trial.report(loss, self._first + epoch)
        if self._may_stop and self._trial.should_prune():
            raise EarlyStop

    def worse_by(self, best: optuna.trial.FrozenTrial) -> float:
        """The lowest loss so far minus that of the best trial over the same epochs."""
        others = [best.intermediate_values.get(e, np.inf) for e in range(len(self._losses))]
        lowest = min(others, default=np.inf)
        return min(self._losses) - lowest if np.isfinite(lowest) else 0.0


def _plain(value: Any) -> Any:
    """A value that the study can store; a custom augmentation becomes "own"."""
    return value if isinstance(value, (str, int, float)) else "own"
