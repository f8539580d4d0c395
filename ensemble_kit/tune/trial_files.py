"""Files of one trial: the out-of-fold logits of each finished fold, and training states.

The training state of a fold is removed at its end. With `--keep-trials` the last state of each
fold is kept, because it holds the network. The folder is named by the trial's settings, so that an
interrupted trial finds its files.
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
    """The result of one held-out fold.

    Parameters
    ----------
    logits : array of float32, shape (n_held_out, n_classes)
        Logits of the held-out rows, in the order of the training rows.
    epochs : tuple of float
        Validation log loss after each epoch (nats).
    images : int
        Number of training images, counted once per epoch.
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
        """The folder of a fold's training states."""
        return self.folder / f"fold-{fold}"

    def read(self, fold: int) -> FoldResult | None:
        """A finished fold; None if there is none, or a file of it is damaged."""
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
        """Store a finished fold, its record last, and remove training states."""
        record, array = self._paths(fold)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_npy(array, result.logits)
        values = dataclasses.asdict(result)
        values.pop("logits")
        write_checked(record, {"made_of": self.made_of, "digest": digest_file(array), **values})
        self.drop_states()

    def drop_states(self) -> None:
        """Remove the training states of unfinished folds."""
        for folder in self.folder.glob("fold-*/"):
            shutil.rmtree(folder, ignore_errors=True)

    def keep_network(self, fold: int, state: State) -> None:
        """Store the last training state of a fold, without the optimizer's moments."""
        shutil.rmtree(self._network(fold), ignore_errors=True)
        optimizer = {**state["optimizer"], "state": {}}
        save_resume(self._network(fold), {**state, "optimizer": optimizer}, self.made_of)

    def network(self, fold: int) -> State | None:
        """The last training state of a fold; None if it was not stored."""
        return load_resume(self._network(fold), self.made_of, lambda _: None)

    def drop_networks(self) -> None:
        """Remove the last training states of all folds."""
        for folder in self.folder.glob("network-*/"):
            shutil.rmtree(folder, ignore_errors=True)

    def epochs_done(self, n_folds: int, epochs: int) -> int:
        """The number of stored epochs, from which an interrupted trial resumes."""
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
