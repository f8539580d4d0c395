"""The rows of one job: training rows, validation rows, the held-out fold, and the test part.

Groups stay together, unless the folds are by image.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.folds import Folds
from ensemble_kit.folds.fold_key import LeftOut, folds_in
from ensemble_kit.folds.validation_split import validation_split
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.member import Member
from ensemble_kit.members.training.fit import Rows
from ensemble_kit.seeding import derive_seed, generator

INNER_SHARE = 0.15


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """The rows of one job: those to fit, those of the held-out fold, those of the test part.

    `lacks` names classes without validation images, such as "no image of class 'benign'".
    """

    fit: Rows
    validation_name: str
    held_out: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    lacks: tuple[str, ...] = ()


def parts_of(
    member: Member, manifest: Manifest, folds: Folds, fold: LeftOut, tiles: Tiles, *, seed: int = 0
) -> Parts:
    """The rows of one member on one fold.

    With `select_on="inner"`, the validation rows are whole groups from the training folds, with
    every class if the groups allow it. A pair of folds holds out the rows of both and has no test
    rows: it is used for nested cross-validation.
    """
    train, test = manifest.part("train"), manifest.part("test")
    left_out = folds_in(fold)
    is_held_out = np.isin(folds.of(train), left_out)
    learning, held_out = train.take(~is_held_out), train.take(is_held_out)
    test = test if len(left_out) == 1 else test.take(np.arange(0))
    lacks: tuple[str, ...] = ()
    validation, name = held_out, "held-out fold"
    if member.recipe.select_on == "inner":
        inner_seed = derive_seed(seed, "inner", fold)
        parted, lacks = validation_split(
            learning, share=INNER_SHARE, seed=inner_seed, by=folds.split_by
        )
        learning, validation, name = parted.part("train"), parted.part("test"), "validation split"
    if member.bag:
        learning = _bagged(learning, derive_seed(seed, "bag", member.name, member.seed, fold))
    place = tiles.rows
    return Parts(
        fit=Rows(
            place(learning.sample_ids),
            learning.labels,
            place(validation.sample_ids),
            validation.labels,
            learning.soft_labels,
        ),
        validation_name=name,
        held_out=place(held_out.sample_ids),
        test=place(test.sample_ids),
        lacks=lacks,
    )


def _bagged(learning: Manifest, seed: int) -> Manifest:
    """A bootstrap of the groups, drawn again until it holds every class."""
    rng = generator(seed, "groups")
    names, group_of = np.unique(learning.groups, return_inverse=True)
    for _ in range(1000):
        drawn = rng.integers(len(names), size=len(names))
        rows = np.concatenate([np.flatnonzero(group_of == g) for g in drawn])
        if len(np.unique(learning.labels[rows])) == len(np.unique(learning.labels)):
            break
    return learning.take(rows)
