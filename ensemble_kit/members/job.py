"""One job: one member on one fold, and what it is made of. Done when `fold.json` stands there.

Does not choose folds, order jobs or run one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.folds import Folds
from ensemble_kit.folds.left_out import LeftOut
from ensemble_kit.images.tiles import Tiles
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members import checkpoint
from ensemble_kit.members.member import Member
from ensemble_kit.members.parts import Parts, parts_of
from ensemble_kit.members.resume import is_made_of, newest_record
from ensemble_kit.run import Run
from ensemble_kit.seeding import derive_seed

CROP = "squash"


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A member, a fold, and the data that both belong to.

    Parameters
    ----------
    fold : int or str
        What is left out: a fold, or a pair of folds such as "0-2".
    manifest : Manifest
        Training and test rows.
    tiles : Tiles
        At the member's input size; joined to the manifest by sample id.
    eval_tiles : Tiles, optional
        The same images at the size that predictions are made at, where it differs.
    keep_features : bool
        Keep the pooled features of the kept fold and the test rows beside their logits. Says
        nothing about the logits, so it is no part of `made_of`; a pair of folds keeps none.
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
    def model_seed(self) -> int:
        return derive_seed(self.seed, self.member.name, self.member.seed, self.fold)

    def parts(self) -> Parts:
        """Which rows train, are watched, are kept out and test."""
        return parts_of(
            self.member, self.manifest, self.folds, self.fold, self.tiles, seed=self.seed
        )

    def changes(self) -> list[str]:
        """What differs between the job's settings and those of what stands in its folder.

        That is the finished fold, or the training state that it would go on from.
        """
        record = checkpoint.read_record(self.folder) or newest_record(self.folder)
        if record is None or is_made_of(record["made_of"], self.made_of):
            return []
        if isinstance(record["made_of"], str):
            return ["settings that a training state of an earlier version does not name"]
        return checkpoint.changed_keys(record["made_of"], self.made_of)

    def differs_by_tuning_alone(self) -> bool:
        """Whether what stands in the folder differs only because its recipe was tuned since."""
        tuned = ("member.tuned:", "member.recipe.learning_rate:", "member.recipe.batch_size:")
        changes = self.changes()
        return self.member.tuned and bool(changes) and all(c.startswith(tuned) for c in changes)

    def finished(self) -> bool:
        """Whether the fold is done with exactly these data and settings, its files whole.

        Raises
        ------
        DataError
            It is done, or begun, with other settings; the message lists the changed keys.
        IntegrityError
            A file of it is damaged.
        """
        record = checkpoint.read_record(self.folder)
        if changes := self.changes():
            what = "finished fold is kept" if record else "job that was cut off goes on"
            raise DataError(
                f"A {what} only with the settings that it was trained with",
                f"'{self.folder}' differs in {first_few(changes)}",
                "Use another --run folder, or --retrain to train this member anew (its old folds are set aside)",
            )
        if record is None:
            return False
        checkpoint.check_files(self.folder, record)
        return True
