"""An ensemble as one PyTorch module from pixels to probabilities, for tracing to graph formats.

The module resizes images by Pillow's bicubic rule. The weights are computed inside the graph, so that
it accepts images of any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import UsageError
from ensemble_kit.export.combiner_graph import combined, refuse_no_graph
from ensemble_kit.images.augmentation.color_jitter import LUMA
from ensemble_kit.images.augmentation.color_space import in_color
from ensemble_kit.images.tiles.layout import STAINS, TileSpec
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.fold_networks import FoldNetwork, MemberNetworks
from ensemble_kit.members.training.predict import views_of

INSTEAD = "Use --format bundle, which predicts with PyTorch"


def bicubic_weights(line: Tensor, n_out: int) -> Tensor:
    """Pillow's antialiased bicubic resizing as a matrix, shape (n_out, len(line))."""
    # Cumulative sums, because an arange would fix the device of the export.
    places, middle = _counted(torch.ones_like(line)), _counted(line.new_ones(n_out))
    scale = torch.ones_like(line).sum() / n_out
    x = (places[None] - middle[:, None] * scale).abs() / scale.clamp(min=1.0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(dim=1, keepdim=True)


def _counted(ones: Tensor) -> Tensor:
    """The values 0.5, 1.5, 2.5, ..."""
    return ones.cumsum(0) - 0.5


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Resize images, and round to integers after each direction, as Pillow does.

    Parameters
    ----------
    images : Tensor of float, shape (batch, channels, any height, any width)
        Values from 0 to 255.
    """
    across, down = images[0, 0, 0, :], images[0, 0, :, 0]
    wide = torch.round((images @ bicubic_weights(across, width).T).clamp(0, 255))
    return torch.round((bicubic_weights(down, height) @ wide).clamp(0, 255))


def luma(images: Tensor) -> Tensor:
    """Three equal channels of integers, as in tiles of grayscale data."""
    weights = torch.tensor(LUMA).reshape(1, 3, 1, 1).type_as(images)
    return torch.round((images * weights).sum(dim=1, keepdim=True)).expand(-1, 3, -1, -1)


class _Network(nn.Module):
    """One fold's network, with its colour space, normalisation, TTA views and class order."""

    mean: Tensor
    std: Tensor

    def __init__(self, one: FoldNetwork) -> None:
        super().__init__()
        self.model, self.color = one.model, one.member.color
        self.tta, self.order = one.member.recipe.regularize.tta, one.by_name.tolist()
        unit = 255.0 if self.color == "rgb" else 1.0
        self.register_buffer("mean", unit * torch.tensor(one.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", unit * torch.tensor(one.std).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = in_color(images, self.color)
        n_pictures = int(x.shape[1]) // int(self.mean.shape[1])
        x = (x - self.mean.repeat(1, n_pictures, 1, 1)) / self.std.repeat(1, n_pictures, 1, 1)
        views = views_of(self.tta, is_square=bool(images.shape[2] == images.shape[3]))
        logits_of_views = [self.model(_view(x, *view)) for view in views]
        found = torch.stack(logits_of_views).mean(dim=0)
        return torch.stack([found[:, c] for c in self.order], dim=1)


def _view(images: Tensor, left_right: bool, up_down: bool, transpose: bool) -> Tensor:
    axes = [axis for axis, flipped in ((3, left_right), (2, up_down)) if flipped]
    out = images.flip(axes) if axes else images
    return out.transpose(2, 3) if transpose else out


class _Member(nn.Module):
    def __init__(self, one: MemberNetworks) -> None:
        super().__init__()
        self.networks = nn.ModuleList(_Network(n) for n in one.by_fold.values())

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([network(images) for network in self.networks]).mean(dim=0)


class PixelGraph(nn.Module):
    """A module from uint8 images (batch, height, width, 3) to probabilities and member logits.

    It has one input for each size of tiles, or two for tiles of pairs: see `inputs`.

    Parameters
    ----------
    data : mapping
        The run's data settings: `join`, `color`, `stain_norm`.

    Raises
    ------
    UsageError
        The combiner, or the preprocessing of a member, has no form as a graph.
    """

    def __init__(self, ensemble: Ensemble, data: Mapping[str, str]) -> None:
        super().__init__()
        self.specs, self.join = ensemble.specs, data.get("join", "none")
        self.is_grey = data.get("color", "rgb") == "grayscale"
        self.combiner: Combiner = ensemble.stored.combiner
        refuse_no_graph(self.combiner)
        _refuse_preprocessing(ensemble, data.get("stain_norm", "none"))
        self.members = nn.ModuleList(_Member(one) for one in ensemble.members)
        self.takes = [self.specs.index(one.specs[0]) for one in ensemble.members]

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Name, tile size and stain of each input, in the order of `forward`."""
        return [one for spec in self.specs for one in _inputs(spec, self.join, len(self.specs))]

    def forward(self, *pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.of_images([one.permute(0, 3, 1, 2).float() for one in pixels])

    def of_images(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict images of any size, one per input, shape (batch, 3, height, width), 0 to 255."""
        left = iter(images)
        return self.of_tiles([self._tile(spec, left) for spec in self.specs])

    def of_tiles(self, tiles: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict tiles of the networks' sizes, shape (batch, channels, height, width), 0 to 255."""
        each = [member(tiles[i]) for member, i in zip(self.members, self.takes, strict=True)]
        logits = torch.stack(each, dim=1)
        return combined(self.combiner, logits), logits

    def _tile(self, spec: TileSpec, images: Iterator[Tensor]) -> Tensor:
        """The tile of the next image or pair, laid out as in `images.tiles.layout`."""
        size = spec.image_size
        if self.join == "none" or spec.stain is not None:
            return resized(self.colored(next(images)), size, size)
        widths = (size - size // 2, size // 2) if self.join == "stack" else (size, size)
        both = [resized(self.colored(next(images)), size, width) for width in widths]
        return torch.cat(both, dim=1 if self.join == "channels" else 3)

    def colored(self, images: Tensor) -> Tensor:
        """Images in the colours of the data settings, 0 to 255."""
        return luma(images) if self.is_grey else images


def _inputs(spec: TileSpec, join: str, n_specs: int) -> list[dict[str, Any]]:
    name = "pixels" if n_specs == 1 else f"pixels_{spec.image_size}"
    about = {"image_size": spec.image_size, "stain": spec.stain, "stain_norm": spec.stain_norm}
    if join == "none":
        return [{"name": name, **about}]
    if spec.stain is not None:
        return [{"name": f"{name}_only_{spec.stain}", **about, "image": spec.stain}]
    return [{"name": f"{name}_{image}", **about, "image": image} for image in STAINS]


def _refuse_preprocessing(ensemble: Ensemble, of_data: str) -> None:
    for member in ensemble.members:
        for norm in [spec.stain_norm or of_data for spec in member.specs]:
            if norm != "none":
                raise UsageError(
                    f"The member '{member.name}' uses the stain normalisation '{norm}'",
                    "graphs have no stain normalisation",
                    INSTEAD,
                )
        colors = {one.member.color for one in member.by_fold.values()}
        if "hed" in colors:
            raise UsageError(
                f"The member '{member.name}' uses the colour space 'hed'",
                "graphs have the other colour spaces only",
                INSTEAD,
            )
