"""SHAP values by the DeepExplainer of the package `shap` (an extra), from a white image.

The package knows the layers of plain CNNs. A network with other layers is refused by name.

References
----------
Lundberg, S. M., & Lee, S.-I. (2017). A unified approach to interpreting model predictions. NeurIPS.
"""

from __future__ import annotations

import copy
import importlib.util
import re
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kit.errors import DataError, EnvironmentFault
from ensemble_kit.explanation.input_attribution import InputPass

NOT_KNOWN = re.compile(r"unrecognized nn\.Module: (\S+)")


class DeepShap(InputPass):
    """What each pixel adds to the score, against a white image; the sum is the whole difference."""

    def maps(self, directions: Tensor) -> Tensor:
        """Shape (n_directions, n, height, width).

        Raises
        ------
        DataError
            `shap` does not know a layer of the network.
        """
        values = _values(self.model, self.images, self.white, self.name)
        return torch.einsum("dnc,nhwc->dnhw", directions, values)


def refuse_without_shap() -> None:
    """Say what to install.

    Raises
    ------
    EnvironmentFault
        The package is not installed.
    """
    if importlib.util.find_spec("shap") is None:
        raise EnvironmentFault(
            "The package 'shap' is not installed",
            "it comes with the extra 'shap'",
            "Install it: pip install 'ensemble-kit[shap]', or use --maps gradientshap",
        )


def _values(model: nn.Module, images: Tensor, white: Tensor, name: str) -> Tensor:
    """Summed over colour channels: shape (n, height, width, n_outputs)."""
    own = _not_in_place(model)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            from shap import DeepExplainer

            values = DeepExplainer(own, white).shap_values(images)
    except (AssertionError, RuntimeError) as error:
        raise _refused(name, "a sum of SHAP values is not the difference of the logits") from error
    unknown = [found[1] for one in caught if (found := NOT_KNOWN.search(str(one.message)))]
    if unknown:
        raise _refused(name, f"'{unknown[0]}' is not a layer that it knows")
    return torch.from_numpy(values).to(images).sum(dim=1)


def _not_in_place(model: nn.Module) -> nn.Module:
    """A copy that overwrites no activations: `shap` reads them."""
    own = copy.deepcopy(model)
    for module in own.modules():
        if hasattr(module, "inplace"):
            changed: Any = module
            changed.inplace = False
    return own


def _refused(name: str, why: str) -> DataError:
    return DataError(
        f"The package 'shap' does not explain the network '{name}'",
        f"{why}; plain CNNs such as cnn4 and tiny_cnn work",
        "Use --maps gradientshap, which works with every network",
    )
