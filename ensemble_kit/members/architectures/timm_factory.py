"""A timm network with exactly the given dropout rates, also if they are 0."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

RATES = ("drop_rate", "drop_path_rate")


def created(name: str, published: bool, settings: dict[str, Any]) -> nn.Module:
    """timm's network called `name`, with its published weights or random ones.

    Some networks have a default dropout rate, so a rate of 0 is passed too. Networks without the
    setting are built without it.

    Raises
    ------
    TypeError
        A setting other than 0 that the network does not accept.

    Examples
    --------
    >>> settings = {"num_classes": 2, "drop_rate": 0.0, "drop_path_rate": 0.0}
    >>> created("densenet121", False, settings).num_classes
    2
    """
    before = torch.get_rng_state()
    while True:
        try:
            made: nn.Module = timm.create_model(name, pretrained=published, **settings)
            return made
        except TypeError as error:
            unknown = [k for k in RATES if settings.get(k) == 0 and f"'{k}'" in str(error)]
            if not unknown:
                raise
            settings = {k: v for k, v in settings.items() if k not in unknown}
            torch.set_rng_state(before)
