"""The methods of making a map, by name."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.explanation.class_activation import gradcam, hooked_pass, layercam
from ensemble_kit.explanation.input_attribution import GradientShap, IntegratedGradients, Occlusion
from ensemble_kit.explanation.shap_values import DeepShap, refuse_without_shap
from ensemble_kit.explanation.target_layer import target_layer

_ACTIVATION = {"gradcam": gradcam, "layercam": layercam}
_INPUT = {
    "gradientshap": GradientShap,
    "integrated-gradients": IntegratedGradients,
    "occlusion": Occlusion,
    "shap": DeepShap,
}
METHODS = (*_ACTIVATION, *_INPUT)


class Pass(Protocol):
    """The pass of a batch through a network: its logits, and maps of scores."""

    @property
    def logits(self) -> Tensor:
        """Logits, shape (n, n_outputs)."""

    def maps(self, directions: Tensor) -> Tensor:
        """Signed maps, shape (n_directions, n, height, width), of `(logits * direction).sum(1)`."""


def check_method(name: str) -> str:
    """Return `name` if it is a method of making maps.

    Raises
    ------
    UsageError
        The method is unknown.
    EnvironmentFault
        The method needs a package that is not installed.
    """
    if name not in METHODS:
        raise UsageError(
            f"Unknown map '{name}'", f"maps are {', '.join(METHODS)}", did_you_mean(name, METHODS)
        )
    if name == "shap":
        refuse_without_shap()
    return name


def pass_of(method: str, model: nn.Module, images: Tensor, white: Tensor, *, name: str) -> Pass:
    """The pass of a batch through a network, prepared for `method`.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    model : torch.nn.Module
        In evaluation mode.
    images, white : Tensor, shape (n, channels, height, width) and (1, channels, height, width)
        Normalised inputs. `white` is the baseline (no tissue).
    name : str
        Name of the network in errors.

    Raises
    ------
    DataError
        The method does not support the layers of the network.
    """
    if method in _ACTIVATION:
        return hooked_pass(model, target_layer(model, name=name), images, _ACTIVATION[method])
    return _INPUT[method](model, images, white, name)
