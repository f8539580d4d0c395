"""One job: one member on one fold, from tiles to kept logits. Done when `fold.json` stands there.

Does not choose folds, order jobs or combine anything.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ensemble_kit.errors import DataError, IntegrityError, first_few
from ensemble_kit.files import digest_json
from ensemble_kit.folds import Folds, hold_out
from ensemble_kit.images.augment import PRESETS
from ensemble_kit.images.batches import Batches
from ensemble_kit.images.tiles import Tiles
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members import checkpoint
from ensemble_kit.members.events import EpochEnded, JobFinished, JobStarted, Watcher, nobody
from ensemble_kit.members.losses import make_loss
from ensemble_kit.members.networks import build_network
from ensemble_kit.members.precision import choose_precision
from ensemble_kit.members.predict import predict_logits
from ensemble_kit.members.recipe import Member
from ensemble_kit.members.train import Training, log_loss_and_accuracy, run_epochs, seeded
from ensemble_kit.run import Run, versions
from ensemble_kit.seeding import derive_seed

INNER_SHARE = 0.15


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A member, a fold, and the data that both belong to.

    Parameters
    ----------
    manifest : Manifest
        Training and test rows.
    tiles : Tiles
        At the member's input size; joined to the manifest by sample id.
    """

    run: Run
    member: Member
    fold: int
    manifest: Manifest
    folds: Folds
    tiles: Tiles
    device: torch.device
    precision: str = "auto"
    seed: int = 0

    @property
    def folder(self) -> Path:
        return self.run.fold_dir(self.member.name, self.fold)

    @property
    def made_of(self) -> dict[str, Any]:
        """Everything that decides the logits, as plain JSON values."""
        return {
            "member": self.member.facts(self.tiles.image_size),
            "fold": self.fold,
            "seed": self.seed,
            "manifest": self.manifest.digest,
            "folds": self.folds.digest,
            "crop": self.tiles.crop,
        }

    @property
    def model_seed(self) -> int:
        return derive_seed(self.seed, self.member.name, self.member.seed, self.fold)

    def finished(self) -> bool:
        """Whether the fold is done with exactly these data and settings, its files whole.

        Raises
        ------
        DataError
            It is done with other settings; the message lists the changed keys.
        IntegrityError
            A file of it is damaged.
        """
        record = checkpoint.read_record(self.folder)
        if record is None:
            return False
        changes = checkpoint.changed_keys(record["made_of"], self.made_of)
        if changes:
            raise DataError(
                "A finished fold is kept only with the settings that it was trained with",
                f"'{self.folder}' differs in {first_few(changes)}",
                "Use another --run folder, or --retrain to train this member anew (its old folds are set aside)",
            )
        checkpoint.check_files(self.folder, record)
        return True


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Tile positions and labels of the parts of one job; `watched` is what each epoch is judged on."""

    train: npt.NDArray[np.int64]
    train_labels: npt.NDArray[np.int64]
    watched: npt.NDArray[np.int64]
    watched_labels: npt.NDArray[np.int64]
    watched_name: str
    kept: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def split_rows(job: Job) -> Rows:
    """Which rows train, which are watched, which are kept out, which test.

    With `select_on="inner"` the watched rows are whole groups taken out of the training folds.
    """
    train = job.manifest.part("train")
    fold = job.folds.of(train)
    learning, kept = train.take(fold != job.fold), train.take(fold == job.fold)
    watched, name = kept, "kept fold"
    if job.member.recipe.select_on == "inner":
        parted = hold_out(
            learning, test_size=INNER_SHARE, seed=derive_seed(job.seed, "inner", job.fold), by=job.folds.split_by
        )
        learning, watched, name = parted.part("train"), parted.part("test"), "inner slice"
    place = job.tiles.rows
    return Rows(
        train=place(learning.sample_ids),
        train_labels=learning.labels,
        watched=place(watched.sample_ids),
        watched_labels=watched.labels,
        watched_name=name,
        kept=place(kept.sample_ids),
        test=place(job.manifest.part("test").sample_ids),
    )


def run_job(job: Job, watcher: Watcher = nobody) -> None:
    """Train one member on one fold, predict its kept fold and the test rows, and store all of it.

    A job that was cut off goes on after its last finished epoch; on the CPU the result is the one
    of an uninterrupted job, bit for bit.
    """
    began = time.perf_counter()
    member, recipe, device = job.member, job.member.recipe, job.device
    rows = split_rows(job)
    n_classes = job.manifest.n_classes
    with seeded(job.model_seed, "weights", device=device):
        model = build_network(member, n_classes)
    mean, std = input_statistics(model)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = choose_precision(job.precision, model, device)
    training = Training.start(model, recipe, precision, device)
    made_of = digest_json(job.made_of)
    state = checkpoint.load_resume(job.folder, made_of)
    if state is not None:
        training.restore(state)
    watcher(JobStarted(member.name, job.fold, recipe.epochs, training.epoch, str(device), precision.name))

    def predict(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return predict_logits(
            model, job.tiles, positions, n_classes=n_classes, device=device, mean=mean, std=std
        )

    def validate(_: nn.Module) -> tuple[float, float]:
        return log_loss_and_accuracy(predict(rows.watched), rows.watched_labels)

    def after_epoch(training: Training) -> None:
        last = training.history[-1]
        watcher(EpochEnded(member.name, job.fold, epochs=recipe.epochs, val_on=rows.watched_name, **last))
        if training.epoch < recipe.epochs:
            checkpoint.save_resume(job.folder, training.state(), made_of)

    batches = Batches(
        job.tiles, rows.train, rows.train_labels, batch_size=recipe.batch_size, device=device,
        mean=mean, std=std, augmentation=PRESETS[recipe.augmentation], sampling=recipe.sampling,
        drop_last=len(rows.train) % recipe.batch_size == 1, seed=job.model_seed,
    )  # fmt: skip
    run_epochs(
        training, batches, make_loss(recipe, rows.train_labels, n_classes, device), validate,
        recipe=recipe, precision=precision, device=device, seed=job.model_seed, after_epoch=after_epoch,
    )  # fmt: skip

    oof, test = predict(rows.kept), predict(rows.test)
    _refuse_nan(job, oof, test)
    checkpoint.write_network(
        job.folder, model, class_names=job.manifest.class_names, input_config=_input_config(job, mean, std)
    )
    chosen = training.best_epoch if training.best_weights is not None else training.epoch - 1
    checkpoint.write_fold(
        job.folder,
        oof=oof,
        test=test,
        history=[{**row, "val_on": rows.watched_name} for row in training.history],
        recipe=recipe.model_dump(mode="json"),
        record={
            "member": member.name,
            "fold": job.fold,
            "class_names": list(job.manifest.class_names),
            "rows": {"train": len(rows.train), "kept": len(rows.kept), "test": len(rows.test)},
            "chosen_epoch": chosen,
            "seconds": round(time.perf_counter() - began, 3),
            "device": str(device),
            "precision": precision.name,
            "stamps": stamps(member),
            "versions": versions(),
        },
        made_of=job.made_of,
    )
    watcher(JobFinished(member.name, job.fold, time.perf_counter() - began, chosen))


def stamps(member: Member) -> list[str]:
    """What must be said beside every figure of this member."""
    if member.recipe.select_on == "kept-fold":
        return [
            "its epoch was chosen on the very fold whose logits are kept, so its out-of-fold figures are optimistic."
        ]
    return []


def input_statistics(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel that the network's inputs are normalised with."""
    config: Any = model.pretrained_cfg
    return tuple(config["mean"]), tuple(config["std"])


def _input_config(job: Job, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    size = job.tiles.image_size
    return {
        "input_size": (3, size, size),
        "mean": mean,
        "std": std,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": job.tiles.crop,
    }


def _refuse_nan(job: Job, *tables: npt.NDArray[np.float32]) -> None:
    bad = sum(int((~np.isfinite(table)).any(axis=1).sum()) for table in tables)
    if bad:
        raise IntegrityError(
            "Kept logits are finite numbers",
            f"{bad} rows of {job.member.name} fold {job.fold} are not",
            "Lower learning_rate, then run the same command",
        )
