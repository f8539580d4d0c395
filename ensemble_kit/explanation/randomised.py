"""The sanity check of maps: networks with shuffled weights must have different maps.

References
----------
Adebayo, J., et al. (2018). Sanity checks for saliency maps. NeurIPS.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ensemble_kit.arrays import Array
from ensemble_kit.explanation.explain import Explanation
from ensemble_kit.explanation.fused_maps import fused_maps
from ensemble_kit.explanation.member_pass import member_pass
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.fold_networks import FoldNetwork, MemberNetworks
from ensemble_kit.seeding import derive_seed


def with_shuffled_weights(member: MemberNetworks, seed: int = 0) -> MemberNetworks:
    """A copy of a member with the values of each weight tensor in random order."""
    by_fold = {
        k: _shuffled(one, derive_seed(seed, "shuffled", k)) for k, one in member.by_fold.items()
    }
    return MemberNetworks(member.name, by_fold)


def shuffled_correlations(
    shuffled: Sequence[MemberNetworks], explanation: Explanation, tiles: Mapping[TileSpec, Tiles]
) -> Array:
    """Absolute rank correlations of signed maps with the maps of shuffled weights, 0 to 1.

    Parameters
    ----------
    shuffled : sequence of MemberNetworks
    explanation : Explanation
        Explanation of the trained members for the same tiles.

    Returns
    -------
    array, shape (n_images, n_members + 1)
        The last column is the ensemble. NaN if a map is constant.
    """
    passes = [member_pass(explanation.method, one, tiles) for one in shuffled]
    grid = explanation.ensemble.shape[1], explanation.ensemble.shape[2]
    other = fused_maps(passes, explanation.explained, explanation.directions, grid).signed
    return np.array(
        [
            [abs(rank_correlation(a, b)) for a, b in zip(*rows, strict=True)]
            for rows in zip(explanation.signed, other, strict=True)
        ]
    )


def _shuffled(network: FoldNetwork, seed: int) -> FoldNetwork:
    draws = torch.Generator().manual_seed(seed)
    model = copy.deepcopy(network.model)
    with torch.no_grad():
        for tensor in model.parameters():
            order = torch.randperm(tensor.numel(), generator=draws).to(tensor.device)
            tensor.copy_(tensor.flatten()[order].view(tensor.shape))
    return dataclasses.replace(network, model=model)


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's correlation of two maps. NaN if one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(m.ravel()) for m in (one, other)]
    ranks = [r - r.mean() for r in ranks]
    size = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum() / size) if size > 0 else float("nan")
