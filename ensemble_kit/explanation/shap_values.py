"""SHAP values by the DeepExplainer of the package `shap` (an extra), with a white image as baseline.

The package supports the layers of plain CNNs. Networks with other layers are refused.

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
    """Contribution of each pixel to the score. The sum is the difference to a white image's score."""

    def maps(self, directions: Tensor) -> Tensor:
        """Signed maps, shape (n_directions, n, height, width).

        Raises
        ------
        DataError
            `shap` does not support a layer of the network.
        """
        values = _values(self.model, self.images, self.white, self.name)
        return torch.einsum("dnc,nhwc->dnhw", directions, values)


def refuse_without_shap() -> None:
    """Raise `EnvironmentFault` if the package is not installed."""
    if importlib.util.find_spec("shap") is None:
        raise EnvironmentFault(
            "The package 'shap' is not installed",
            "it comes with the extra 'shap'",
            "Install it: pip install 'ensemble-kit[shap]', or use --maps gradientshap",
        )


def _values(model: nn.Module, images: Tensor, white: Tensor, name: str) -> Tensor:
    """SHAP values, summed over colour channels, shape (n, height, width, n_outputs)."""
    own = _not_in_place(model)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            from shap import DeepExplainer

            values = DeepExplainer(own, white).shap_values(images)
    except (AssertionError, RuntimeError) as error:
        raise _refused(
            name, "its SHAP values do not sum to the difference of the logits"
        ) from error
    unknown = [found[1] for one in caught if (found := NOT_KNOWN.search(str(one.message)))]
    if unknown:
        raise _refused(name, f"its layer '{unknown[0]}' is unknown")
    return torch.from_numpy(values).to(images).sum(dim=1)


def _not_in_place(model: nn.Module) -> nn.Module:
    """A copy without in-place layers, because `shap` reads the activations."""
    own = copy.deepcopy(model)
    for module in own.modules():
        if hasattr(module, "inplace"):
            changed: Any = module
            changed.inplace = False
    return own


def _refused(name: str, why: str) -> DataError:
    return DataError(
        f"The package 'shap' does not support the network '{name}': {why}",
        "plain CNNs such as cnn4 and tiny_cnn are supported",
        "Use --maps gradientshap, which works with every network",
    )
