"""The average of a network's weights during training: exponential per step, or equal over epochs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Average:
    """A network whose weights are the mean of another network's weights over time.

    Counters, such as those of batch normalisation, are copied.

    Parameters
    ----------
    model : torch.nn.Module
        The network in training, on its device. It must stay on that device.
    decay : float
        Decay of an exponential mean; lower in the first steps, so that the initial weights are
        forgotten in short trainings. 0: all weights count equally.

    Examples
    --------
    >>> model = nn.Linear(1, 1, bias=False)
    >>> average = Average(model)
    >>> for value in (1.0, 2.0, 6.0):
    ...     _ = model.weight.data.fill_(value)
    ...     average.update()
    >>> average.count, average.network.weight.item()
    (3, 3.0)
    """

    def __init__(self, model: nn.Module, decay: float = 0.0) -> None:
        self.network = copy.deepcopy(model)
        self.count = 0
        self._decay = decay
        self._pairs = list(zip(_tensors(self.network), _tensors(model), strict=True))
        self._means = [pair for pair in self._pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in self._pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights."""
        if self.count:
            torch._foreach_lerp_(*_apart(self._means), self._share())
        for average, current in self._counts if self.count else self._pairs:
            average.copy_(current)
        self.count += 1

    def _share(self) -> float:
        """The weight of the newest weights."""
        if not self._decay:
            return 1 / (self.count + 1)
        return 1 - min(self._decay, (1 + self.count) / (10 + self.count))

    def state(self) -> dict[str, Any]:
        """The state for `restore`."""
        weights = self.network.state_dict()
        return {"n_averaged": self.count, **{f"module.{k}": v for k, v in weights.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        weights = {k.removeprefix("module."): v for k, v in state.items() if k != "n_averaged"}
        self.network.load_state_dict(weights)
        self.count = int(state["n_averaged"])


def renew_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Compute the batch-normalisation statistics of a network on these images.

    A network with averaged weights needs its own statistics; averaged statistics are not correct
    (Izmailov et al. 2018, section 3.2). The other layers are in evaluation mode.
    """
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    n_seen = 0
    with torch.no_grad():
        for images in batches:
            n_seen += len(images)
            for norm in norms:
                norm.momentum = len(images) / n_seen  # each image weighs the same
            network(images)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    return (t.detach() for t in itertools.chain(network.parameters(), network.buffers()))


def _apart(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [average for average, _ in pairs], [current for _, current in pairs]
