"""Maps of all members on one grid, and the ensemble's map: the signed sum of the members' evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.explanation.fuse import on_grid
from ensemble_kit.explanation.member_pass import MemberPass


@dataclasses.dataclass(frozen=True, eq=False)
class FusedMaps:
    """Maps of a batch on one grid.

    Parameters
    ----------
    maps : array of float32, shape (n, n_members, height, width)
        At least 0. The mean over the image is the total evidence, in units of the logit.
    signed : array of float32, shape (n, n_members + 1, height, width)
        Maps of the members, then of the ensemble. Evidence against the score is negative.
    cells : sequence of (rows, columns)
        Resolution of each member's own map.
    """

    maps: Array
    signed: Array
    cells: Sequence[tuple[int, int]]


def fused_maps(
    passes: Sequence[MemberPass],
    explained: npt.NDArray[np.int64],
    directions: Array,
    grid: tuple[int, int],
) -> FusedMaps:
    """The members' maps of a class, and the signed sum of their evidence for the ensemble's score.

    Parameters
    ----------
    passes : sequence of MemberPass
        Passes of the same images.
    explained : array of int, shape (n,)
    directions : array, shape (n, n_members, n_classes)
        The derivative of the ensemble's score with respect to the logits.
    """
    own = np.zeros((len(explained), directions.shape[2]))
    own[np.arange(len(own)), explained] = 1.0
    maps, signed, cells = [], [], []
    total = np.zeros((len(own), *grid), np.float32)
    for m, one in enumerate(passes):
        evidence, share = one.maps(np.stack([own, directions[:, m]]))
        cells.append((evidence.shape[1], evidence.shape[2]))
        # Total evidence is the sum over cells. This scale makes it independent of the resolution.
        evidence, share = (x * (x.shape[1] * x.shape[2]) for x in (evidence, share))
        maps.append(on_grid(np.maximum(evidence, 0.0), grid))
        signed.append(on_grid(evidence, grid))
        total += on_grid(share, grid)
    return FusedMaps(np.stack(maps, axis=1), np.stack([*signed, total], axis=1), cells)
