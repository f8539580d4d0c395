"""The plan of a tuning, from which this process and its workers open the studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.files import cache_folder
from ensemble_kit.folds import Folds
from ensemble_kit.images.tiles.build import Tiles, build_tile_sets
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.job import CROP
from ensemble_kit.members.member import Member
from ensemble_kit.members.training.precision import choose_device
from ensemble_kit.run import Run
from ensemble_kit.tune.member_study import MemberStudy
from ensemble_kit.tune.objective import Objective
from ensemble_kit.tune.proxy import Proxy, ProxyTrial
from ensemble_kit.tune.space import PLACES, Space, dimensions
from ensemble_kit.tune.storage import database, is_server, open_storage, storage_path


@dataclasses.dataclass(frozen=True, eq=False)
class TunePlan:
    """All data and settings of the trials, as values that can be sent to another process.

    Parameters
    ----------
    train : Manifest
        Training rows only.
    team : bool
        Score trials by the mean with the stored out-of-fold predictions of the other members.
    keeps_networks : bool
        Store the networks of finished trials.
    planned : mapping of member name to list of ProxyTrial
        Trials that replace those of the sampler.
    proxy : Proxy, optional
        The proxy that chose the planned trials.
    images : Manifest, optional
        Training rows to decode, if they are more than `train`, so that all plans share one cache.
    """

    members: tuple[Member, ...]
    train: Manifest
    folds: Folds
    run_path: Path
    space: Space
    storage: str | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    team: bool = False
    prunes: bool = True
    keeps_networks: bool = False
    cache: Path | None = None
    planned: Mapping[str, Sequence[ProxyTrial]] = dataclasses.field(default_factory=dict)
    proxy: Proxy | None = None
    images: Manifest | None = None

    def tiles(self) -> dict[TileSpec, Tiles]:
        """The decoded images of all members and trials."""
        sizes = self.space.image_size
        tried = [
            m if size is None else m.model_copy(update={"image_size": size})
            for m in self.members
            for size in (None, *(PLACES["image_size"][2] if sizes is True else sizes or ()))
        ]
        specs = {spec for m in tried for spec in (m.tile_spec, m.eval_spec)}
        return build_tile_sets(
            self.images or self.train,
            list(specs),
            cache_dir=self.cache or cache_folder(),
            crop=CROP,
        )

    def opened(self, on_epoch: Callable[[], None] = lambda: None) -> dict[str, MemberStudy]:
        """The study of each member."""
        run, device, tiles = Run(self.run_path), choose_device(self.device), self.tiles()
        storage = open_storage(run, self.storage)
        with database(storage_path(run)):
            return {
                member.name: MemberStudy.opened(
                    self._objective(member, run, tiles, device, on_epoch),
                    storage,
                    has_server=is_server(self.storage),
                    planned=self.planned.get(member.name),
                )
                for member in self.members
            }

    def _objective(
        self,
        member: Member,
        run: Run,
        tiles: dict[TileSpec, Tiles],
        device: torch.device,
        on_epoch: Callable[[], None],
    ) -> Objective:
        n_learning = len(self.train) * (self.folds.n_splits - 1) // self.folds.n_splits
        return Objective(
            member,
            self.train,
            self.folds,
            run,
            dimensions(self.space, member, n_learning),
            tiles,
            device,
            self.precision,
            self.seed,
            others_proba(run, member.name, self.train) if self.team else None,
            self.prunes,
            self.keeps_networks,
            on_epoch,
        )


def others_proba(run: Run, member: str, train: Manifest) -> Array:
    """Stored out-of-fold probabilities of the other members, in the order of the training rows.

    Returns
    -------
    array, shape (n_train, n_others, n_classes)

    Raises
    ------
    UsageError
        The run has no predictions of other members.
    DataError
        Training images have no stored predictions.
    """
    names = [n for n in run.members() if n.partition("@")[0] != member] if run.exists else []
    if not names:
        raise UsageError(
            f"'{run.path.as_posix()}' has no predictions of members other than {member}",
            "--objective team needs them to score trials",
            "Train other members first (ensemble-kit train-members), or use --objective solo",
        )
    table = run.predictions("oof").select(names)
    where = {name: row for row, name in enumerate(table.sample_ids.tolist())}
    ids = train.sample_ids.tolist()
    if missing := [i for i in ids if i not in where]:
        raise DataError(
            f"{len(missing)} training images have no stored predictions, e.g. {first_few(missing, 2)}",
            "--objective team needs predictions of the other members for all training images",
            "Use the run's own data and folds",
        )
    rows = np.array([where[i] for i in ids])
    return softmax(table.logits[rows].astype(np.float64))
