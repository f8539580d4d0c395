"""Checks of the members before training: networks are built without weights, no image is read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ensemble_kit.errors import DataError
from ensemble_kit.images.augmentation.color_space import color_channels
from ensemble_kit.images.augmentation.presets import preset
from ensemble_kit.images.tiles.layout import tile_shape
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import head_modules, head_parameters
from ensemble_kit.members.networks.flops import network_on_meta
from ensemble_kit.members.networks.init_checkpoint import weights_for
from ensemble_kit.members.networks.pretrained import require_files
from ensemble_kit.members.recipe_sections import Optim
from ensemble_kit.members.registry import cost, counted, refuse_size
from ensemble_kit.members.training.frozen_backbone import classifier_of
from ensemble_kit.members.training.optim import check_optimizer


def check_members(members: Sequence[Member], manifest: Manifest) -> list[str]:
    """Refuse members that cannot train on these data.

    Parameters
    ----------
    members : sequence of Member
    manifest : Manifest
        Gives the classes and how images are joined; the images are not read.

    Returns
    -------
    list of str
        One notice for each initial checkpoint that holds several networks.

    Raises
    ------
    UsageError
        An unknown augmentation or optimizer.
    EnvironmentFault
        An optimizer that does not run here, or a missing checkpoint.
    DataError
        An unknown network, a network that does not accept its settings, image size or classes, or
        a checkpoint of another network.
    """
    require_files(members)
    sentences: list[str] = []
    for member in members:
        preset(member.recipe.augmentation)
        check_optimizer(member.recipe.optim.name)
        shapes = [tile_shape(manifest, spec) for spec in (member.tile_spec, member.eval_spec)]
        height, width, of_tiles = shapes[0]
        channels = color_channels(member.color, of_tiles)
        cost(member.network, member.input_size, manifest.n_classes, channels)
        if not _is_plain(member) or height != width:
            model = network_on_meta(member, manifest.n_classes, channels)
            for (height, width, _), good in zip(shapes, (None, member.input_size), strict=True):
                with refuse_size(member.network, height, good, width=width):
                    counted(model, (height, width, channels))
            _check_head(member, model)
            if member.weights:
                note = weights_for(model, member.weights, head_modules(model)).note
                sentences += [f"{member.name}: {note}"] if note else []
    return sentences


def _check_head(member: Member, model: nn.Module) -> None:
    """Refuse settings of the classifier if the network does not name its classifier."""
    optim = member.recipe.optim
    if optim.cache_features:
        classifier_of(model)
    if _needs_head(optim) and not head_parameters(model):
        raise DataError(
            f"The classifier of '{member.network}' is unknown",
            "head_only_epochs and head_rate need to know which weights belong to it",
            "Remove head_only_epochs and head_rate for this member, or name its classifier: head = [...]",
        )


def _needs_head(optim: Optim) -> bool:
    return bool(optim.head_only_epochs or optim.head_rate != 1)


def _is_plain(member: Member) -> bool:
    """Whether `cost` builds the member's network without changes."""
    regularize = member.recipe.regularize
    return not (
        member.head
        or member.drop_rate
        or member.weights
        or _needs_head(member.recipe.optim)
        or regularize.drop_path
        or regularize.eval_size
    )
