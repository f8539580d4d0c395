"""Training of one network on given rows of tiles, for jobs and tuning trials."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ensemble_kit.arrays import Array
from ensemble_kit.images.augmentation.color_space import color_channels, color_statistics
from ensemble_kit.images.augmentation.presets import preset
from ensemble_kit.images.loading.batches import Batches
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network
from ensemble_kit.members.training.frozen_backbone import FrozenBackbone, refuse_other_tails
from ensemble_kit.members.training.loop import run_epochs, seeded
from ensemble_kit.members.training.losses import make_loss
from ensemble_kit.members.training.precision import (
    FULL,
    Precision,
    choose_precision,
    keep_depthwise_in_float32,
    tensor_float32,
)
from ensemble_kit.members.training.predict import (
    predict_features,
    predict_logits,
    validation_metrics,
)
from ensemble_kit.members.training.state import Plan, State, Training


def ignore_text(text: str) -> None:
    """A function that ignores notices."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Positions in the tiles, and labels, of the training and validation rows.

    `train_soft`, shape (n_train, n_classes): class probabilities that replace `train_labels`.
    """

    train: npt.NDArray[np.int64]
    train_labels: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    validation_labels: npt.NDArray[np.int64]
    train_soft: Array | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A network on its device, with the statistics that normalise its inputs.

    Parameters
    ----------
    model : torch.nn.Module
    training : Training
        State of the training loop; after `run` the model has the selected weights.
    mean, std : tuple of float
        Per channel, for pixels scaled to [0, 1] or in the member's colour space.
    """

    member: Member
    tiles: Tiles
    eval_tiles: Tiles
    n_classes: int
    model: nn.Module
    training: Training
    precision: Precision
    device: torch.device
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int

    @classmethod
    def start(
        cls,
        member: Member,
        tiles: Tiles,
        n_classes: int,
        *,
        device: torch.device,
        precision: str,
        seed: int,
        eval_tiles: Tiles | None = None,
        state: State | None = None,
    ) -> Fit:
        """A network with initial weights drawn from `seed`, or resumed from `state`.

        `eval_tiles` are the same images at the size for predictions.
        """
        channels = color_channels(member.color, tiles.pixels.shape[-1])
        with seeded(seed, "weights", device=device):
            model = build_network(
                member, n_classes, image_size=tiles.image_size, in_channels=channels
            )
        config: Any = model.pretrained_cfg
        model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        chosen = choose_precision(precision, device)
        if chosen.autocasts and device.type == "cpu":
            keep_depthwise_in_float32(model)
        training = Training.start(model, member.recipe, chosen, device)
        if state is not None:
            training.restore(state)
        of_rgb = (_per_channel(config[k], 3) for k in ("mean", "std"))
        mean, std = (
            _per_channel(values, channels) for values in color_statistics(member.color, *of_rgb)
        )
        evaluated_on = eval_tiles or tiles
        return cls(
            member, tiles, evaluated_on, n_classes, model, training, chosen, device, mean, std, seed
        )

    def run(
        self,
        rows: Rows,
        after_epoch: Callable[[Training], None],
        notice: Callable[[str], None] = ignore_text,
    ) -> None:
        """Train to the end of the recipe."""
        recipe = self.member.recipe
        batches = Batches(
            self.tiles,
            rows.train,
            rows.train_labels,
            batch_size=recipe.batch_size,
            device=self.device,
            mean=self.mean,
            std=self.std,
            color=self.member.color,
            augmentation=preset(recipe.augmentation),
            sampling=recipe.sampling,
            drop_single=True,
            seed=self.seed,
        )
        plan = Plan(
            recipe=recipe,
            loss_of=make_loss(recipe, rows.train_labels, self.n_classes, self.device),
            n_classes=self.n_classes,
            precision=self.precision,
            device=self.device,
            seed=self.seed,
            name_of=lambda row: str(self.tiles.sample_ids[rows.train[row]]),
            soft=None if rows.train_soft is None else _soft_labels(rows.train_soft, self.device),
        )
        on_gpu = self.device.type == "cuda"
        with tensor_float32(on_gpu):
            run_epochs(
                self.training,
                batches,
                plan,
                validate=lambda network: validation_metrics(
                    self.validation_logits(rows.validation, network), rows.validation_labels
                ),
                freeze_backbone=lambda: self._frozen_backbone(rows),
                after_epoch=after_epoch,
                notice=notice,
            )

    def _frozen_backbone(self, rows: Rows) -> FrozenBackbone:
        """The backbone's output for all rows, in the precision of the training."""
        few = rows.validation[:4]
        refuse_other_tails(
            self.model, self._features(few, self.eval_tiles, FULL), self.logits(few, tta="none")
        )
        once, place = np.unique(rows.train, return_inverse=True)
        return FrozenBackbone(
            torch.from_numpy(self._features(once, self.tiles)[place]).to(self.device),
            torch.from_numpy(self._features(rows.validation, self.eval_tiles)).to(self.device),
            rows.validation_labels,
            # The dense layers of `Member.head` have their own dropout.
            drop_rate=0.0 if self.member.head else self.member.drop_rate,
        )

    @contextlib.contextmanager
    def holding(self, name: str) -> Iterator[nn.Module]:
        """The model with an extra checkpoint (snapshot or average) inside the block."""
        own = copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(self.training.extra_checkpoints[name])
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own)

    def validation_logits(self, positions: npt.NDArray[np.int64], network: nn.Module) -> Array:
        """Logits for the validation of an epoch: one view, in the precision of the training."""
        return self._logits(network, positions, "none", self.precision)

    def logits(self, positions: npt.NDArray[np.int64], tta: str | None = None) -> Array:
        """Logits of the tiles at `positions`: float32, shape (n, n_classes)."""
        return self._logits(self.model, positions, tta or self.member.recipe.regularize.tta, FULL)

    def _logits(
        self, network: nn.Module, positions: npt.NDArray[np.int64], tta: str, precision: Precision
    ) -> Array:
        return predict_logits(
            network,
            self.eval_tiles,
            positions,
            n_classes=self.n_classes,
            device=self.device,
            mean=self.mean,
            std=self.std,
            color=self.member.color,
            tta=tta,
            precision=precision,
        )

    def input_config(self, crop: str) -> dict[str, Any]:
        """timm's description of the input for predictions; `crop` is timm's `crop_mode`."""
        height, width = self.eval_tiles.pixels.shape[1:3]
        return {
            "input_size": (len(self.mean), height, width),
            "mean": self.mean,
            "std": self.std,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": crop,
        }

    def features(self, positions: npt.NDArray[np.int64]) -> Array:
        """Pooled features of the tiles at `positions`: float32, shape (n, n_features)."""
        tta = self.member.recipe.regularize.tta
        return self._features(positions, self.eval_tiles, FULL, tta=tta)

    def _features(
        self,
        positions: npt.NDArray[np.int64],
        tiles: Tiles,
        precision: Precision | None = None,
        tta: str = "none",
    ) -> Array:
        return predict_features(
            self.model,
            tiles,
            positions,
            device=self.device,
            mean=self.mean,
            std=self.std,
            color=self.member.color,
            tta=tta,
            precision=precision or self.precision,
        )


def _soft_labels(soft: Array, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.asarray(soft, dtype=np.float32)).to(device)


def _per_channel(values: Any, n_channels: int) -> tuple[float, ...]:
    # Networks have three values; a joined pair of images uses them twice.
    given = tuple(float(v) for v in values)
    return (
        given
        if len(given) == n_channels
        else tuple(given[i % len(given)] for i in range(n_channels))
    )
