"""Files of one trial: the out-of-fold logits of each finished fold, and training states.

The state of the fold that is trained is removed at its end. With `--keep-trials` the last state of
each fold stays: it holds the network. A trial is named by its settings, so one that was cut off
finds what it had. Does not train.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from ensemble_kit.arrays import Array
from ensemble_kit.checked import check_file, read_checked, write_checked
from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.files import digest_file, digest_json, read_npy, write_npy
from ensemble_kit.members.jobs.resume import load_resume, newest_record, save_resume
from ensemble_kit.members.training.state import State
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class FoldResult:
    """What training on all other folds gave.

    Parameters
    ----------
    logits : array of float32, shape (n_held_out, n_classes)
        Of the held-out rows, in the order of the training rows.
    epochs : tuple of float
        Validation log loss after each epoch (nats).
    images : int
        Images that were trained on, counted once per epoch.
    seconds : float
    """

    logits: Array
    epochs: tuple[float, ...]
    images: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class TrialFiles:
    """The folder of a trial; `made_of` is everything that decides its logits."""

    folder: Path
    made_of: dict[str, Any]

    @classmethod
    def of(cls, run: Run, member: str, made_of: dict[str, Any]) -> TrialFiles:
        return cls(run.path / "tuned" / "trials" / member / digest_json(made_of)[:16], made_of)

    def state_folder(self, fold: int) -> Path:
        """Where the training states of a fold lie."""
        return self.folder / f"fold-{fold}"

    def read(self, fold: int) -> FoldResult | None:
        """A finished fold; None where there is none, or where a file of it is damaged."""
        record, array = self._paths(fold)
        try:
            content = read_checked(record, advice="")
            if digest_json(content["made_of"]) != digest_json(self.made_of):
                return None
            check_file(array, content["digest"], advice="")
            logits = read_npy(array)
        except (EnsembleKitError, KeyError):
            return None
        return FoldResult(
            logits, tuple(content["epochs"]), int(content["images"]), float(content["seconds"])
        )

    def write(self, fold: int, result: FoldResult) -> None:
        """Store a finished fold, its record last; the training states go."""
        record, array = self._paths(fold)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_npy(array, result.logits)
        values = dataclasses.asdict(result)
        values.pop("logits")
        write_checked(record, {"made_of": self.made_of, "digest": digest_file(array), **values})
        self.drop_states()

    def drop_states(self) -> None:
        """Remove the states of trainings that are not finished."""
        for folder in self.folder.glob("fold-*/"):
            shutil.rmtree(folder, ignore_errors=True)

    def keep_network(self, fold: int, state: State) -> None:
        """Store the last training state of a fold, without the moments of its optimizer."""
        shutil.rmtree(self._network(fold), ignore_errors=True)
        optimizer = {**state["optimizer"], "state": {}}
        save_resume(self._network(fold), {**state, "optimizer": optimizer}, self.made_of)

    def network(self, fold: int) -> State | None:
        """The last training state of a fold; None where it was not kept."""
        return load_resume(self._network(fold), self.made_of, lambda _: None)

    def drop_networks(self) -> None:
        """Remove the last training states of all folds."""
        for folder in self.folder.glob("network-*/"):
            shutil.rmtree(folder, ignore_errors=True)

    def epochs_done(self, n_folds: int, epochs: int) -> int:
        """Finished epochs that are on the disk: what a trial that was cut off goes on from."""
        done = 0
        for fold in range(n_folds):
            if self._paths(fold)[0].is_file():
                done += epochs
            elif (record := newest_record(self.state_folder(fold))) is not None:
                done += int(record["epoch"])
        return done

    def _network(self, fold: int) -> Path:
        return self.folder / f"network-{fold}"

    def _paths(self, fold: int) -> tuple[Path, Path]:
        return self.folder / f"fold-{fold}.json", self.folder / f"fold-{fold}.npy"
