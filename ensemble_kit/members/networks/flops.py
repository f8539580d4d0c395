"""Parameters and FLOPs of a member's network, counted without memory for its weights."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import nn

from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.recipe_sections import Regularize
from ensemble_kit.members.registry import Cost, cost, counted


def member_cost(member: Member, n_classes: int, shape: tuple[int, int, int]) -> Cost:
    """Parameters, and the cost of one forward pass over one image.

    Parameters
    ----------
    shape : (int, int, int)
        Height, width and channels of the network's input.
    """
    height, width, channels = shape
    if height == width and not member.head:
        return cost(member.network, height, n_classes, channels)
    return counted(network_on_meta(member, n_classes, channels), shape)


def network_on_meta(member: Member, n_classes: int, in_channels: int) -> nn.Module:
    """The member's network in evaluation mode on the meta device, without weights."""
    regularize = member.recipe.regularize
    equivalent = Member(
        member.network,
        image_size=member.input_size,
        head=member.head,
        drop_rate=member.drop_rate,
        pretrained=False,
        recipe=Recipe(regularize=Regularize(drop_path=regularize.drop_path)),
    )
    return _built(equivalent, n_classes, in_channels)


@functools.lru_cache(maxsize=256)
def _built(member: Member, n_classes: int, in_channels: int) -> nn.Module:
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        # A size too small for the network gives empty layers; `refuse_size` reports it.
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        model = build_network(
            member, n_classes, image_size=member.input_size, in_channels=in_channels
        )
    return model.eval()
