"""First weights from a file: which of its tensors a network takes, its stem adapted where it must be.

Reads tensors only; builds no network and loads nothing into one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.members.dense_networks import WithHead

# How many batches a normalisation has seen: older and exported files leave it out.
COUNTER = "num_batches_tracked"


def weights_for(model: nn.Module, path: Path, head: Collection[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that fit `model`; its head may be another one.

    A file of the plain network fits its body where it has a head of our own. A stem for three
    channels is adapted to another number as timm does.

    Parameters
    ----------
    head : collection of str
        Names of the classifier's parameters.

    Raises
    ------
    DataError
        The file is no checkpoint, or one of another architecture.
    """
    state = read_weights(path)
    own = model.state_dict()
    if isinstance(model, WithHead) and not any(k.startswith("body.") for k in state):
        state = {f"body.{k}": v for k, v in state.items()}
    fitting = _fitting(state, own)
    lacking = [k for k in own if k not in fitting and k not in head and not k.endswith(COUNTER)]
    if lacking:
        raise DataError(
            "A checkpoint given as first weights fits the network, its head aside",
            f"'{path}' lacks or reshapes {len(lacking)} of {len(own)} tensors: {first_few(lacking, 3)}",
            "Give a checkpoint of the same architecture",
        )
    return fitting


def _fitting(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    adapted = {k: _adapted(v, own[k].shape) for k, v in state.items() if k in own}
    return {k: v for k, v in adapted.items() if v.shape == own[k].shape}


def _adapted(weight: Tensor, shape: torch.Size) -> Tensor:
    """A stem's kernels for as many channels as `shape` has; anything else as it is."""
    kernels = weight.ndim == len(shape) == 4
    if kernels and weight.shape[1] == 3 != shape[1]:
        return adapt_input_conv(shape[1], weight)  # type: ignore[no-any-return]
    return weight


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a `.pt`/`.pth` without code in it, by name.

    Raises
    ------
    DataError
        It is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, ValueError, KeyError, EOFError) as error:
        raise _bad_weights(path, error) from error
    except Exception as error:  # a pickle that would run code raises its own class
        raise _bad_weights(path, error) from error
    state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _bad_weights(path, ValueError("it holds no mapping of names to tensors"))
    return {k.removeprefix("module."): v for k, v in state.items()}


def _bad_weights(path: Path, error: Exception) -> DataError:
    return DataError(
        "First weights are a file of tensors: .safetensors, or .pt/.pth without code in it",
        f"'{path}': {str(error).splitlines()[0][:160] if str(error) else type(error).__name__}",
        "Check the path, or convert the checkpoint to .safetensors",
    )
