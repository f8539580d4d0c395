"""A trained ensemble that predicts images: `load_ensemble(run).predict(paths)`.

Networks are opened once and stay in memory. Writes nothing.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ensemble_kit.arrays import Array
from ensemble_kit.combiners.base import Combined
from ensemble_kit.errors import EnsembleKitError, UsageError, command
from ensemble_kit.images.reading.digests import refuse_faults
from ensemble_kit.inference.fold_networks import MemberNetworks, open_member
from ensemble_kit.inference.image_predictions import ImagePredictions, predictions_of
from ensemble_kit.inference.sources import Source, as_sources
from ensemble_kit.inference.stored_method import StoredMethod, open_method
from ensemble_kit.inference.tile_blocks import in_blocks, tile_block
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.training.precision import choose_device
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class BlockPredictions:
    """A block of images: the predictions of those that can be read, and why others cannot.

    Parameters
    ----------
    sources : sequence of Source
    predictions : ImagePredictions
        Of `sources[i] for i in good`.
    good : array of int, shape (n_good,)
    faults : mapping of position to error
    """

    sources: Sequence[Source]
    predictions: ImagePredictions
    good: npt.NDArray[np.int64]
    faults: Mapping[int, EnsembleKitError]


class Ensemble:
    """A method of a run and the networks of its members. See `load_ensemble`.

    Calls from several threads take turns.
    """

    def __init__(
        self, method: StoredMethod, members: Sequence[MemberNetworks], manifest: Manifest
    ) -> None:
        self.stored, self._members, self._manifest = method, tuple(members), manifest
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        n_networks = sum(len(one.by_fold) for one in self._members)
        return (
            f"Ensemble({self.method!r}: {len(self._members)} members, {n_networks} networks, "
            f"classes {', '.join(self.class_names)})"
        )

    @property
    def method(self) -> str:
        """The method that combines the members."""
        return self.stored.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in their order: columns of `predict_proba`."""
        return self.stored.class_names

    @property
    def member_names(self) -> tuple[str, ...]:
        """The members, in the order of the votes."""
        return self.stored.member_names

    @property
    def notes(self) -> tuple[str, ...]:
        """How the method was chosen, and what of the run could not be used."""
        return self.stored.notes

    def predict(self, images: Any) -> npt.NDArray[np.str_]:
        """The class of each image, shape (n_images,); see `predict_all` for what images are."""
        return self.predict_all(images).classes

    def predict_proba(self, images: Any) -> Array:
        """The probability of every class, shape (n_images, n_classes)."""
        return self.predict_all(images).proba

    def predict_sets(self, images: Any) -> list[tuple[str, ...]]:
        """The conformal prediction set of each image, length n_images.

        Raises
        ------
        UsageError
            The run has no thresholds for sets.
        """
        if self.stored.sets is None:
            raise UsageError(
                f"No prediction sets are stored for '{self.method}'",
                "predict_sets uses stored thresholds",
                f"Run {command('conformal', '--method', self.method)} with this run first",
            )
        found = self.predict_all(images)
        return [found.set_of(i) or () for i in range(len(found))]

    def predict_all(self, images: Any) -> ImagePredictions:
        """Classes, probabilities, votes, uncertainty, sets and decisions of some images.

        Parameters
        ----------
        images : path, array, or sequence of them
            Arrays are uint8, (height, width) or (height, width, 3). A tuple of two is a pair: H&E,
            then IHC.

        Raises
        ------
        DataError
            Images that cannot be read, all of them, by name.
        """
        sources = as_sources(images)
        blocks = list(self.predict_blocks(sources))
        faults = [error for block in blocks for error in block.faults.values()]
        refuse_faults(dict(enumerate(faults)), len(sources))
        return _joined([block.predictions for block in blocks]) if blocks else self._none()

    def predict_blocks(
        self, sources: Sequence[Source], start: int = 0
    ) -> Iterator[BlockPredictions]:
        """Predictions block by block, in constant memory; unreadable images are in `faults`.

        Parameters
        ----------
        sources : sequence of Source
        start : int
            The first one, a multiple of `tile_blocks.BLOCK`.
        """
        for block in in_blocks(sources, start):
            with self._lock:
                found = self._predict_block(block)
            yield found

    def _predict_block(self, sources: Sequence[Source]) -> BlockPredictions:
        specs = [spec for member in self._members for spec in member.specs]
        made = tile_block(self._manifest, sources, specs)
        if not len(made.good):
            return BlockPredictions(sources, self._none(), made.good, made.faults)
        logits = np.stack([member.logits(made.tiles) for member in self._members], axis=1)
        names = [sources[i].name for i in made.good]
        found = predictions_of(self.stored, logits, names)
        return BlockPredictions(sources, found, made.good, made.faults)

    def _none(self) -> ImagePredictions:
        shape = 0, len(self.member_names), len(self.class_names)
        return ImagePredictions(
            (),
            self.class_names,
            self.member_names,
            Combined(np.empty((0, shape[2])), np.empty(0, np.int64), np.empty(0, np.bool_)),
            np.empty(shape),
            None if self.stored.sets is None else np.empty((0, shape[2]), np.bool_),
            None if self.stored.decision is None else (),
        )


def load_ensemble(
    run: Run | str | os.PathLike[str], *, method: str | None = None, device: str = "auto"
) -> Ensemble:
    """Open a run's ensemble for predicting new images.

    Parameters
    ----------
    run : Run or path
    method : str, optional
        A stacked method, or a member; by default the method that `stack` chose, and the mean of all
        members where nothing was stacked (see `Ensemble.notes`).
    device : str
        `auto` is the first of CUDA, MPS and CPU that is there.

    Raises
    ------
    UsageError
        No such method, or one that cannot predict new images.
    DataError
        There is no run, an imported one, or a network is missing.
    IntegrityError
        A stored file is damaged, or belongs to other predictions.
    """
    opened = run if isinstance(run, Run) else Run(run)
    stored, manifest = open_method(opened, method), opened.manifest()
    place: torch.device = choose_device(device)
    members = [open_member(opened, name, manifest, place) for name in stored.member_names]
    return Ensemble(stored, members, manifest)


def _joined(parts: Sequence[ImagePredictions]) -> ImagePredictions:
    first = parts[0]
    return dataclasses.replace(
        first,
        names=tuple(name for part in parts for name in part.names),
        combined=Combined(
            np.concatenate([part.combined.proba for part in parts]),
            np.concatenate([part.combined.predicted for part in parts]),
            np.concatenate([part.combined.tied for part in parts]),
        ),
        member_proba=np.concatenate([part.member_proba for part in parts]),
        sets=None if first.sets is None else np.concatenate([p.sets for p in parts]),  # type: ignore[misc]
        decisions=None
        if first.decisions is None
        else tuple(one for part in parts for one in part.decisions or ()),
    )
