"""A batch of tiles through all networks of a member: mean logits, and mean maps of their scores.

TTA views are averaged as in predictions. Their maps are transformed back first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble_kit.arrays import Array
from ensemble_kit.explanation.methods import Pass, pass_of
from ensemble_kit.images.loading.batches import Batches
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.fold_networks import FoldNetwork, MemberNetworks
from ensemble_kit.members.training.precision import tensor_float32
from ensemble_kit.members.training.predict import apply_view, undo_view, views_of

View = tuple[bool, bool, bool]


@dataclasses.dataclass(frozen=True, eq=False)
class MemberPass:
    """A member's logits of a batch, and the passes that make its maps.

    Parameters
    ----------
    logits : array of float32, shape (n, n_classes)
        Mean over folds and views, classes in the run's order.
    passes : sequence of (pass, view, network)
    """

    logits: Array
    passes: Sequence[tuple[Pass, View, FoldNetwork]]

    def maps(self, directions: Array) -> Array:
        """Mean signed maps of the scores `(logits * direction).sum(1)`.

        Parameters
        ----------
        directions : array, shape (n_directions, n, n_classes)

        Returns
        -------
        array of float32, shape (n_directions, n, height, width)
            Height and width depend on the method and the network.
        """
        with tensor_float32(False):
            found = [_maps(*one, directions) for one in self.passes]
        return torch.stack(found).mean(dim=0).cpu().numpy()


def member_pass(method: str, member: MemberNetworks, tiles: Mapping[TileSpec, Tiles]) -> MemberPass:
    """Run tiles through all networks of a member, once per TTA view.

    Parameters
    ----------
    method : str
        One of `methods.METHODS`.
    """
    passes = []
    with tensor_float32(False):
        for network in member.by_fold.values():
            own = tiles[network.member.eval_spec]
            images = normalised(network, own)
            white = normalised(network, _white_like(own))
            tta = network.member.recipe.regularize.tta
            for view in views_of(tta, is_square=images.shape[2] == images.shape[3]):
                seen = apply_view(images, *view)
                one = pass_of(method, network.model, seen, white, name=network.member.network)
                passes.append((one, view, network))
        logits = [one.logits.detach().float().cpu().numpy()[:, n.by_name] for one, _, n in passes]
    return MemberPass(np.mean(logits, axis=0), passes)


def normalised(network: FoldNetwork, tiles: Tiles) -> Tensor:
    """The network's normalised inputs, shape (n, channels, height, width)."""
    n = len(tiles)
    batches = Batches(
        tiles,
        np.arange(n),
        np.zeros(n, dtype=np.int64),
        batch_size=n,
        device=network.device,
        mean=network.mean,
        std=network.std,
        color=network.member.color,
        shuffle=False,
    )
    return next(images for images, _, _ in batches.epoch(0))


def _white_like(tiles: Tiles) -> Tiles:
    pixels = np.full_like(tiles.pixels[:1], 255)
    return Tiles(pixels, np.array(["white"]), "", tiles.image_size)


def _maps(one: Pass, view: View, network: FoldNetwork, directions: Array) -> Tensor:
    own: npt.NDArray[np.float32] = np.empty_like(directions, dtype=np.float32)
    own[..., network.by_name] = directions  # the network's outputs have another order
    return undo_view(one.maps(torch.from_numpy(own).to(network.device)), *view)
