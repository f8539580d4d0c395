"""The run folder: its paths, its record, its lock, and its stored predictions."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from ensemble_kit.atomic_write import sweep
from ensemble_kit.checked import is_bound, write_checked
from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.files import read_toml, write_text
from ensemble_kit.folds import Folds
from ensemble_kit.folds.fold_key import LeftOut
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.nested import NestedFold
from ensemble_kit.predictions.store import MemberLogits, PredictionStore
from ensemble_kit.predictions.table import KINDS, Predictions
from ensemble_kit.run.features import keeps_features, with_features
from ensemble_kit.run.lock import held
from ensemble_kit.run.nested import nested_folds
from ensemble_kit.run.notes import UNBOUND, run_notes
from ensemble_kit.run.records import (
    RECORD,
    in_order,
    new_record,
    read_folds,
    read_manifest,
    read_record,
    refuse_other_data,
)
from ensemble_kit.run.requested import (
    absent_members,
    refuse_interrupted_import,
    remember,
    requested_members,
)
from ensemble_kit.run.tables import by_fold_model, member_table

CONFIG = "config.toml"  # the settings of the last training
ENSEMBLES = "ensembles"
# Files and folders that show that a run has results.
RESULT_FOLDERS = ("members", "predictions", "replaced", "tuned", ENSEMBLES, "report")


class Run:
    """One experiment's folder.

    Parameters
    ----------
    path : path
        The folder. Creating the object reads and writes nothing.

    Examples
    --------
    >>> Run("checkpoints/demo").fold_dir("resnet18", 0).as_posix()
    'checkpoints/demo/members/resnet18/fold-0'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.store = PredictionStore(self.path / "predictions")

    def __repr__(self) -> str:
        return f"Run('{self.path.as_posix()}')"

    # -- paths -----------------------------------------------------------------------------

    def member_dir(self, member: str) -> Path:
        """Folder of a member's training; `resnet18@snap1` is trained with `resnet18`."""
        return self.path / "members" / member.partition("@")[0]

    def fold_dir(self, member: str, fold: LeftOut) -> Path:
        """Folder of a member's network and logits of one fold."""
        return self.member_dir(member) / f"fold-{fold}" / member.partition("@")[2]

    def ensemble_dir(self, method: str) -> Path:
        return self.path / ENSEMBLES / method

    @property
    def report_dir(self) -> Path:
        return self.path / "report"

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run (its record is written last)."""
        return (self.path / RECORD).is_file()

    @property
    def is_begun(self) -> bool:
        """Whether the run has results: a started job, tuned values, or stored predictions."""
        return any(any((self.path / name).glob("[!.]*")) for name in RESULT_FOLDERS)

    @property
    def is_imported(self) -> bool:
        """Whether its predictions were imported, so that it has no jobs."""
        path = self.path / CONFIG
        return path.is_file() and "imported" in read_toml(path)

    # -- record, manifest, folds ---------------------------------------------------------------

    @property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises
        ------
        DataError
            There is no run here, or it has another layout version.
        """
        return read_record(self.path)

    def manifest(self) -> Manifest:
        """The manifest of the run."""
        return read_manifest(self.path)

    def folds(self) -> Folds:
        """The folds of the run."""
        return read_folds(self.path)

    def begin(self, manifest: Manifest, folds: Folds, config: Mapping[str, Any]) -> None:
        """Write the run's record, or check that the folder was made from the same data and folds.

        A run without results (e.g. its first training stopped at a bad image) is written again. The
        `config.toml` of other runs is not changed; `keep_config` replaces it.

        Parameters
        ----------
        manifest : Manifest
            Training and test rows.
        folds : Folds
            The folds of the training rows.
        config : mapping
            The resolved settings of the experiment; written as `config.toml` of a new run.

        Raises
        ------
        DataError
            The folder holds a run over other data or other folds.
        IntegrityError
            Its tables were changed.
        """
        folds.of(manifest.part("train"))
        if self.exists:
            same = self.record["digests"] == {"manifest": manifest.digest, "folds": folds.digest}
            if same or self.is_begun:
                refuse_other_data(self.path, manifest, folds)
                return
            (self.path / RECORD).unlink()
        manifest.write(self.path / "manifest.csv")
        folds.write(self.path / "folds.csv")
        self.keep_config(config)
        write_checked(self.path / RECORD, new_record(manifest, folds))

    def keep_config(self, config: Mapping[str, Any]) -> None:
        """Write `config.toml`: the settings of the last training."""
        write_text(self.path / CONFIG, tomli_w.dumps(dict(config)))

    @contextlib.contextmanager
    def locked(self, *, seconds: float = 0) -> Iterator[None]:
        """Lock the run against other processes inside a `with` block.

        Waits up to `seconds` if another process has the lock.

        Raises
        ------
        RunLockedError
            Another process has the lock; the message names it.
        """
        with held(self.path, seconds=seconds):
            sweep(self.path)
            yield

    @contextlib.contextmanager
    def writing_results(self) -> Iterator[None]:
        """Lock the results of the run inside a `with` block.

        Ensembles, prediction sets, thresholds and the report are written under this lock. It is
        independent of the lock of a training: results can be written while members train.

        Raises
        ------
        DataError
            There is no run here; nothing is created.
        RunLockedError
            Another process has the lock; the message names it.
        """
        read_record(self.path)
        with held(self.path / ENSEMBLES):
            sweep(self.path)
            yield

    # -- predictions -----------------------------------------------------------------------

    def requested_members(self) -> list[str]:
        """All members that were requested in this run, in that order."""
        return requested_members(self.path)

    def remember(self, members: Sequence[str]) -> None:
        """Add members to the requested members."""
        remember(self.path, members)

    def set_aside(self, member: str) -> Path:
        """Move a member's folds and predictions to `replaced/`; return the new folder.

        Raises
        ------
        RunLockedError
            Another process is working on one of the folds; the message names it.
        """
        with contextlib.ExitStack() as all_folds:
            for folder in self.member_dir(member).glob("fold-*"):
                all_folds.enter_context(held(folder))
        taken = len(list((self.path / "replaced").glob(f"{member}-*")))
        target = self.path / "replaced" / f"{member}-{taken + 1}"
        target.mkdir(parents=True)
        if self.member_dir(member).is_dir():
            self.member_dir(member).rename(target / "members")
        for folder in (self.store.root / member, *self.store.root.glob(f"{member}@*")):
            if folder.is_dir():
                folder.rename(target / folder.name.replace(member, "predictions", 1))
        return target

    def members(self) -> list[str]:
        """Members with stored logits, in the order of the requests."""
        return in_order(self.store.members(), self.requested_members())

    def predictions(
        self,
        kind: str = "oof",
        *,
        partial: bool = False,
        fold_models: bool = False,
        features: bool = False,
    ) -> Predictions:
        """All members' logits as one table.

        Parameters
        ----------
        kind : {"oof", "test"}
            `test` averages each member's fold models in logit space.
        partial : bool
            Accept members whose folds are not all done; their rows are NaN.
        fold_models : bool
            For test rows only: each fold's model is a separate member, `resnet18@fold0`. There is no
            such table for out-of-fold rows, so only rules without fitting can combine it.
        features : bool
            Add the members' pooled features (`train-members --keep-features`). Cannot be combined
            with `partial` or `fold_models`.

        Raises
        ------
        DataError
            There are no predictions, no test part, an unfinished member without `partial`, or no
            features.
        IntegrityError
            A file is damaged, predictions are of another manifest or other folds, or an import was
            interrupted.
        """
        if kind not in KINDS:
            raise DataError(
                f"Unknown kind of predictions '{kind}'",
                "the kinds are 'oof' and 'test'",
                "Choose one of the two",
            )
        refuse_interrupted_import(self.path)
        stored = {name: self._read_stored(name) for name in self.members()}
        table = member_table(
            by_fold_model(stored, kind) if fold_models else stored,
            self.manifest(),
            self.folds(),
            kind,
            partial=partial,
            notes=self.notes(stored),
            where=self.path,
        )
        if not features:
            return table
        found = {name: self.store.read_features(name) for name in stored}
        n_folds = self.folds().n_splits
        return with_features(table, stored, found, n_folds=n_folds, where=self.path)

    @property
    def keeps_features(self) -> bool:
        """Whether pooled features of every member and fold are stored."""
        return keeps_features(self.store, self.members(), self.folds().n_splits)

    def nested_predictions(self) -> tuple[NestedFold, ...]:
        """Tables for nested cross-validation: for each fold, logits of models trained without it.

        Raises
        ------
        DataError
            A model without a pair of folds is missing (`train-members --nested`).
        """
        oof = self.predictions("oof")
        stored = {name: self._read_stored(name) for name in oof.member_names}
        return nested_folds(stored, oof, self.folds(), self.path)

    def _read_stored(self, member: str) -> MemberLogits:
        # A job that ends now replaces arrays and index one after the other: read again later.
        with contextlib.suppress(IntegrityError):
            return self.store.read(member)
        time.sleep(0.5)
        return self.store.read(member)

    def notes(self, stored: Mapping[str, MemberLogits] | None = None) -> tuple[str, ...]:
        """The caveats that are shown beside every result of this run.

        Parameters
        ----------
        stored : mapping of member to MemberLogits, optional
            The members of the results, for their own caveats and for missing members.
        """
        stored = stored or {}
        absent = absent_members(self.path, self.store.members()) if stored else ()
        notes = run_notes(self.record, stored, absent)
        if not is_bound(self.path / RECORD):
            notes.append(UNBOUND)
        return tuple(dict.fromkeys(notes))
