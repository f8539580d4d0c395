"""The methods of making a map, by name."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.explanation.class_activation import gradcam, hooked_pass, layercam
from ensemble_kit.explanation.input_attribution import GradientShap, IntegratedGradients, Occlusion
from ensemble_kit.explanation.shap_values import DeepShap, refuse_without_shap
from ensemble_kit.explanation.target_layer import target_layer

# How gradients weigh activations.
_ACTIVATION = {"gradcam": gradcam, "layercam": layercam}
_INPUT = {
    "gradientshap": GradientShap,
    "integrated-gradients": IntegratedGradients,
    "occlusion": Occlusion,
    "shap": DeepShap,
}
METHODS = (*_ACTIVATION, *_INPUT)


class Pass(Protocol):
    """A batch that went through a network: its logits, and maps of any scores of them."""

    @property
    def logits(self) -> Tensor:
        """Shape (n, n_outputs)."""

    def maps(self, directions: Tensor) -> Tensor:
        """Signed maps, shape (n_directions, n, height, width), of `(logits * direction).sum(1)`."""


def check_method(name: str) -> str:
    """`name` if it is a method of making maps.

    Raises
    ------
    UsageError
        It is not.
    EnvironmentFault
        It needs a package that is not installed.
    """
    if name not in METHODS:
        raise UsageError(
            f"Unknown map '{name}'", f"maps are {', '.join(METHODS)}", did_you_mean(name, METHODS)
        )
    if name == "shap":
        refuse_without_shap()
    return name


def pass_of(method: str, model: nn.Module, images: Tensor, white: Tensor, *, name: str) -> Pass:
    """One pass of a batch through a network, with what `method` needs of it.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    model : torch.nn.Module
        In evaluation mode.
    images, white : Tensor, shape (n, channels, height, width) and (1, channels, height, width)
        As the network sees them; `white` stands for no tissue.
    name : str
        What the network is called in an error.

    Raises
    ------
    DataError
        A class activation map of a network whose layers are not known; or from the maps of `shap`.
    """
    if method in _ACTIVATION:
        return hooked_pass(model, target_layer(model, name=name), images, _ACTIVATION[method])
    return _INPUT[method](model, images, white, name)
