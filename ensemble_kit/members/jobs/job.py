"""A job: one member on one fold. It is done when its `fold.json` exists."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.folds import Folds
from ensemble_kit.folds.fold_key import LeftOut
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs import fold_files as checkpoint
from ensemble_kit.members.jobs.job_rows import Parts, parts_of
from ensemble_kit.members.jobs.resume import is_made_of, newest_record
from ensemble_kit.members.member import Member
from ensemble_kit.run import Run
from ensemble_kit.seeding import derive_seed

CROP = "squash"
# Version of the training code: raised if the same settings give other weights than before.
TRAINER = 2
# Settings that tuning may change.
TUNED = (
    "member.tuned:",
    "member.drop_rate:",
    "member.image_size:",
    "member.recipe.learning_rate:",
    "member.recipe.batch_size:",
    "member.recipe.weight_decay:",
    "member.recipe.label_smoothing:",
    "member.recipe.augmentation:",
    "member.recipe.class_weights:",
    "member.recipe.sampling:",
    "member.recipe.optim.head_rate:",
    "member.recipe.optim.layer_decay:",
    "member.recipe.regularize.drop_path:",
    "member.recipe.regularize.mixup:",
    "member.recipe.regularize.ema_decay:",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A member, a fold, and their data.

    Parameters
    ----------
    fold : int or str
        The held-out fold, or a pair of held-out folds such as "0-2".
    manifest : Manifest
        Training and test rows.
    tiles : Tiles
        Tiles at the member's input size; joined to the manifest by sample id.
    eval_tiles : Tiles, optional
        Tiles for predictions, if their size differs.
    keep_features : bool
        Store the pooled features of the held-out fold and the test rows; not for pairs of folds.
        It does not change the logits, so it is not part of `made_of`.
    """

    run: Run
    member: Member
    fold: LeftOut
    manifest: Manifest
    folds: Folds
    tiles: Tiles
    device: torch.device
    precision: str = "auto"
    seed: int = 0
    eval_tiles: Tiles | None = None
    keep_features: bool = False

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
            "crop": CROP,
        }

    @property
    def begun_of(self) -> dict[str, Any]:
        """`made_of` and the version of the training code: a training state must match both."""
        return {**self.made_of, "trainer": TRAINER}

    @property
    def model_seed(self) -> int:
        return derive_seed(self.seed, self.member.name, self.member.seed, self.fold)

    def parts(self) -> Parts:
        """The rows for training, for validation, of the held-out fold and of the test part."""
        return parts_of(
            self.member, self.manifest, self.folds, self.fold, self.tiles, seed=self.seed
        )

    def changes(self) -> list[str]:
        """The differences between the job's settings and those stored in its folder.

        These are the settings of the finished fold, or of the training state to resume from.
        """
        record, requested = checkpoint.read_record(self.folder), self.made_of
        if record is None:
            record, requested = newest_record(self.folder), self.begun_of
        if record is None or is_made_of(record["made_of"], requested):
            return []
        if isinstance(record["made_of"], str):
            return ["settings that training states of an earlier version do not list"]
        return checkpoint.changed_keys(
            {"trainer": 1, **record["made_of"]}, {"trainer": 1, **requested}
        )

    def differs_by_tuning_alone(self) -> bool:
        """Whether the folder's settings differ only because the recipe was tuned later."""
        changes = self.changes()
        return self.member.tuned and bool(changes) and all(c.startswith(TUNED) for c in changes)

    def finished(self) -> bool:
        """Whether the fold is done with exactly these data and settings.

        Raises
        ------
        DataError
            The fold was trained or begun with other settings; the message lists the changed keys.
        IntegrityError
            A file of the fold is damaged.
        """
        record = checkpoint.read_record(self.folder)
        if changes := self.changes():
            what = "finished fold is used again" if record else "job continues"
            raise DataError(
                f"'{self.folder}' differs in {first_few(changes)}",
                f"a {what} only with the settings that it was trained with",
                "Use another --run folder. Or use --retrain to train this member again (its old folds move to replaced/)",
            )
        if record is None:
            self._refuse_other_trainer()
            return False
        checkpoint.check_files(self.folder, record)
        return True

    def _refuse_other_trainer(self) -> None:
        """Refuse to mix folds of this and an earlier version of the training code."""
        for path in sorted(self.folder.parent.glob("fold-*/fold.json")):
            trainer = (checkpoint.read_record(path.parent) or {}).get("trainer", 1)
            if trainer != TRAINER:
                raise DataError(
                    f"'{path.parent}' was trained by version {trainer} of the training code; this is "
                    f"version {TRAINER}",
                    "all folds of a member need the same version",
                    "Use --retrain to train this member again (its old folds move to replaced/), or the "
                    "version of ensemble-kit that began it",
                )
