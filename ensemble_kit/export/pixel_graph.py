"""An ensemble as one PyTorch module, from pixels to probabilities: what graph formats are traced from.

The image is resized by Pillow's rule for bicubic, whose weights are computed inside the graph, so that
images of any size go in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import UsageError
from ensemble_kit.export.combiner_graph import combined, refuse_no_graph
from ensemble_kit.images.augmentation.color_space import in_color
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.fold_networks import FoldNetwork, MemberNetworks
from ensemble_kit.members.training.predict import poses_of

INSTEAD = "Export it with --format bundle, which predicts with PyTorch"


def bicubic_weights(n_in: Tensor | int, n_out: int) -> Tensor:
    """Pillow's antialiased bicubic as a matrix of shape (n_out, n_in); the identity for equal sizes."""
    size = torch.as_tensor(n_in)
    scale = size.to(torch.float32) / n_out
    middle = (torch.arange(n_out, dtype=torch.float32) + 0.5) * scale
    places = torch.arange(n_in, dtype=torch.float32) + 0.5  # type: ignore[arg-type]
    x = (places[None] - middle[:, None]).abs() / scale.clamp(min=1.0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(dim=1, keepdim=True)


def resized(images: Tensor, size: int) -> Tensor:
    """Images of 0 to 255 at `size` x `size`, rounded to whole values after each direction as Pillow does.

    Parameters
    ----------
    images : Tensor of float, shape (batch, channels, height, width)
    """
    height, width = images.shape[2], images.shape[3]
    across = torch.round((images @ bicubic_weights(width, size).T).clamp(0, 255))
    return torch.round((bicubic_weights(height, size) @ across).clamp(0, 255))


class _Network(nn.Module):
    """One fold's network, with its colour space, normalisation, test-time views and class order."""

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
        x = (in_color(images, self.color) - self.mean) / self.std
        views = [self.model(_view(x, *pose)) for pose in poses_of(self.tta, is_square=True)]
        return torch.stack(views).mean(dim=0)[:, self.order]


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
    """From uint8 images (batch, height, width, 3) to probabilities and member logits.

    There is one input for each size of tiles; all get the same images.

    Raises
    ------
    UsageError
        The combiner, or the preprocessing of a member, cannot be a graph; the message names it.
    """

    def __init__(self, ensemble: Ensemble, join: str) -> None:
        super().__init__()
        self.specs = ensemble.specs
        self.combiner: Combiner = ensemble.stored.combiner
        refuse_no_graph(self.combiner)
        _refuse_preprocessing(ensemble, join)
        self.members = nn.ModuleList(_Member(one) for one in ensemble.members)
        self.takes = [self.specs.index(one.specs[0]) for one in ensemble.members]

    def forward(self, *pixels: Tensor) -> tuple[Tensor, Tensor]:
        tiles = [
            resized(one.permute(0, 3, 1, 2).float(), spec.image_size)
            for one, spec in zip(pixels, self.specs, strict=True)
        ]
        return self.of_tiles(tiles)

    def of_tiles(self, tiles: list[Tensor]) -> tuple[Tensor, Tensor]:
        """From images of 0 to 255 at the size of each input, shape (batch, 3, size, size)."""
        each = [member(tiles[i]) for member, i in zip(self.members, self.takes, strict=True)]
        logits = torch.stack(each, dim=1)
        return combined(self.combiner, logits), logits


def input_names(specs: list[TileSpec]) -> list[str]:
    """What the inputs of a graph are called: `pixels` where there is one."""
    if len(specs) == 1:
        return ["pixels"]
    return [f"pixels_{spec.image_size}" for spec in specs]


def _refuse_preprocessing(ensemble: Ensemble, join: str) -> None:
    if join != "none":
        raise UsageError(
            "Pairs of H&E and IHC cannot be a graph", f"got images joined by '{join}'", INSTEAD
        )
    for member in ensemble.members:
        for spec in member.specs:
            if spec.stain_norm not in (None, "none"):
                raise UsageError(
                    f"The stain normalisation '{spec.stain_norm}' cannot be a graph",
                    f"the member '{member.name}' uses it",
                    INSTEAD,
                )
        colors = {one.member.color for one in member.by_fold.values()}
        if "hed" in colors:
            raise UsageError(
                "The colour space 'hed' cannot be a graph",
                f"the member '{member.name}' uses it",
                INSTEAD,
            )
