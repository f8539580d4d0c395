"""A trained ensemble that predicts images: `load_ensemble(run).predict(paths)`.

The networks are opened once and stay in memory.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ensemble_kit.arrays import Array
from ensemble_kit.errors import EnsembleKitError, UsageError, command
from ensemble_kit.images.digests import refuse_faults
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.backends import refuse_graph_of_run
from ensemble_kit.inference.bundle_files import is_bundle
from ensemble_kit.inference.card_facts import run_facts
from ensemble_kit.inference.fold_networks import MemberNetworks, open_member
from ensemble_kit.inference.graphs import OpenGraph
from ensemble_kit.inference.image_caveats import KnownImages
from ensemble_kit.inference.image_predictions import ImagePredictions, joined, predictions_of
from ensemble_kit.inference.model_card import model_card
from ensemble_kit.inference.sources import Source, as_sources
from ensemble_kit.inference.stored_method import StoredMethod, open_method
from ensemble_kit.inference.tile_blocks import in_blocks, tile_block
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.training.precision import choose_device
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.run import Run

if TYPE_CHECKING:
    from ensemble_kit.explanation.explain import Explanation


@dataclasses.dataclass(frozen=True, eq=False)
class BlockPredictions:
    """A block of images: the predictions of readable images, the errors of the others.

    Parameters
    ----------
    sources : sequence of Source
    predictions : ImagePredictions
        Predictions of `sources[i] for i in good`.
    good : array of int, shape (n_good,)
        Positions of the readable images.
    faults : mapping of position to error
    """

    sources: Sequence[Source]
    predictions: ImagePredictions
    good: npt.NDArray[np.int64]
    faults: Mapping[int, EnsembleKitError]


class Ensemble:
    """A method and the networks of its members, of a run or a bundle. See `load_ensemble`.

    Calls from several threads take turns.

    Parameters
    ----------
    members : sequence of MemberNetworks
        Empty if a graph predicts.
    manifest : Manifest
        The data settings.
    source : str
        The run folder or the bundle.
    card : callable, optional
        Returns the model card.
    graph : OpenGraph, optional
        Replaces the networks.
    known : KnownImages, optional
        The images of the run. Default: the images of the manifest.
    """

    def __init__(
        self,
        method: StoredMethod,
        members: Sequence[MemberNetworks],
        manifest: Manifest,
        *,
        source: str = "",
        card: Callable[[], str] = str,
        graph: OpenGraph | None = None,
        known: KnownImages | None = None,
    ) -> None:
        self.stored, self._members, self.manifest = method, tuple(members), manifest
        self.source, self._card, self._graph = source, card, graph
        self._known = KnownImages.of(manifest) if known is None else known
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        n_networks = sum(len(one.by_fold) for one in self._members)
        networks = f"{n_networks} networks" if self._graph is None else "one graph"
        return (
            f"Ensemble({self.method!r}: {len(self.member_names)} members, {networks}, "
            f"classes {', '.join(self.class_names)}, backend {self.backend})"
        )

    @property
    def backend(self) -> str:
        """The backend that runs the networks: `torch`, `onnxruntime` or `openvino`."""
        return "torch" if self._graph is None else self._graph.backend

    @property
    def device(self) -> str:
        """The device of the networks, e.g. `cpu` or `cuda`."""
        networks = [one for member in self._members for one in member.by_fold.values()]
        return str(networks[0].device) if networks else "cpu"

    @property
    def card(self) -> str:
        """The model card, as Markdown in the format of Hugging Face."""
        return self._card()

    @property
    def method(self) -> str:
        """The name of the method that combines the members."""
        return self.stored.name

    @property
    def gives_vote_shares(self) -> bool:
        """Whether the method outputs vote shares instead of probabilities."""
        return self.stored.combiner.gives_vote_shares

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the columns of `predict_proba`."""
        return self.stored.class_names

    @property
    def member_names(self) -> tuple[str, ...]:
        """The members, in the order of the votes."""
        return self.stored.member_names

    @property
    def members(self) -> tuple[MemberNetworks, ...]:
        """The networks by member and fold. Empty if a graph predicts."""
        return self._members

    @property
    def takes_pairs(self) -> bool:
        """Whether a sample is a pair of H&E and IHC images."""
        table = self.manifest.table
        return "join" in table and bool((table["join"] != "none").any())

    @property
    def notes(self) -> tuple[str, ...]:
        """Caveats: the choice of the method, the run, and missing prediction sets or decisions."""
        return (*self.stored.notes, *self.stored.decision_notes)

    def predict(self, images: Any) -> npt.NDArray[np.str_]:
        """The class of each image, shape (n_images,). For `images`, see `predict_all`."""
        return self.predict_all(images).classes

    def predict_proba(self, images: Any) -> Array:
        """The probability of every class, shape (n_images, n_classes)."""
        return self.predict_all(images).proba

    def predict_sets(self, images: Any) -> list[tuple[str, ...]]:
        """The conformal prediction set of each image, length n_images.

        Raises
        ------
        UsageError
            The run has no thresholds for prediction sets.
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
        """Classes, probabilities, votes, uncertainty, prediction sets and decisions of images.

        Parameters
        ----------
        images : path, array, or sequence of them
            Arrays are uint8, shape (height, width) or (height, width, 3). A tuple of two is a pair:
            H&E, then IHC.

        Raises
        ------
        DataError
            Some images cannot be read. The message names them.
        """
        return self.predict_sources(as_sources(images))

    def predict_sources(self, sources: Sequence[Source]) -> ImagePredictions:
        """The same as `predict_all`, for images with their own reader (`Source.read`)."""
        blocks = list(self.predict_blocks(sources))
        faults = [error for block in blocks for error in block.faults.values()]
        refuse_faults(dict(enumerate(faults)), len(sources))
        return joined([block.predictions for block in blocks]) if blocks else self._none()

    def explain(
        self, images: Any, method: str = "gradcam", *, class_name: str | None = None
    ) -> Explanation:
        """Attribution maps of each member and the ensemble: see `explanation.explain.explain`."""
        from ensemble_kit.explanation.explain import explain

        return explain(self, images, method, class_name=class_name)

    def predict_blocks(
        self, sources: Sequence[Source], start: int = 0
    ) -> Iterator[BlockPredictions]:
        """Predictions block by block, in constant memory. Unreadable images are in `faults`.

        Parameters
        ----------
        sources : sequence of Source
        start : int
            Position of the first image, a multiple of `tile_blocks.BLOCK`.
        """
        for block in in_blocks(sources, start):
            with self.lock:
                found = self._predict_block(block)
            yield found

    def _predict_block(self, sources: Sequence[Source]) -> BlockPredictions:
        made = tile_block(self.manifest, sources, self.specs)
        if not len(made.good):
            return BlockPredictions(sources, self._none(), made.good, made.faults)
        logits, features = self._outputs(made.tiles)
        good = [sources[i] for i in made.good]
        found = predictions_of(self.stored, logits, good, self._known, features)
        return BlockPredictions(sources, found, made.good, made.faults)

    def predictions_of(self, logits: Array, sources: Sequence[Source]) -> ImagePredictions:
        """The method's predictions from logits, shape (n_images, n_members, n_classes)."""
        return predictions_of(self.stored, logits, sources, self._known)

    @property
    def specs(self) -> list[TileSpec]:
        """Sizes and settings of the tiles that the networks take."""
        if self._graph is not None:
            return list(self._graph.specs)
        return list(dict.fromkeys(spec for member in self._members for spec in member.specs))

    def tiles_of(self, sources: Sequence[Source]) -> Mapping[TileSpec, Tiles]:
        """The tiles of images. All images must be readable."""
        made = tile_block(self.manifest, sources, self.specs)
        refuse_faults(dict(made.faults), len(sources))
        return made.tiles

    def member_logits(self, tiles: Mapping[TileSpec, Tiles]) -> Array:
        """Logits of all members, shape (n_images, n_members, n_classes), from tiles of `specs`."""
        if self._graph is not None:
            return self._graph.logits(tiles)
        return np.stack([member.logits(tiles) for member in self._members], axis=1)

    def _outputs(self, tiles: Mapping[TileSpec, Tiles]) -> tuple[Array, PooledFeatures | None]:
        """Logits of all members, and their pooled features if the method needs them."""
        if not self.stored.combiner.needs_features:
            return self.member_logits(tiles), None
        both = [member.logits_and_features(tiles) for member in self._members]
        logits = np.stack([one for one, _ in both], axis=1)
        spaces = np.tile(list(self._members[0].by_fold), (len(logits), 1))
        return logits, PooledFeatures(tuple(one for _, one in both), spaces)

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
    run: Run | str | os.PathLike[str],
    *,
    method: str | None = None,
    device: str = "auto",
    backend: str = "auto",
) -> Ensemble:
    """Open the ensemble of a run or of a bundle for predicting new images.

    Parameters
    ----------
    run : Run or path
        A run folder, or a folder or .zip that `ensemble-kit export` wrote.
    method : str, optional
        A stacked method or a member. Default: the method that `stack` chose. If nothing was stacked:
        the mean of all members. A bundle has one method.
    device : str
        `auto` is the first available of CUDA, MPS and CPU.
    backend : {"auto", "torch", "onnxruntime", "openvino"}
        `auto` on the CPU is the first installed backend that can run the bundle's graph. Without a
        graph, or on another device, it is torch.

    Raises
    ------
    UsageError
        The method is unknown or cannot predict new images, or the backend has no graph.
    DataError
        There is no run, the run is imported, or a network is missing.
    IntegrityError
        A stored file is damaged, or belongs to other predictions.
    EnvironmentFault
        A backend is not installed, or does not reproduce the bundle's stored predictions.
    """
    if not isinstance(run, Run) and is_bundle(run):
        from ensemble_kit.inference.open_bundle import open_bundle

        return open_bundle(run, method=method, device=device, backend=backend)
    refuse_graph_of_run(backend)
    opened = run if isinstance(run, Run) else Run(run)
    stored, manifest = open_method(opened, method), opened.manifest()
    place: torch.device = choose_device(device)
    members = [open_member(opened, name, manifest, place) for name in stored.member_names]
    return Ensemble(
        stored,
        members,
        manifest,
        source=opened.path.as_posix(),
        card=lambda: model_card(run_facts(opened, stored, manifest)),
    )
