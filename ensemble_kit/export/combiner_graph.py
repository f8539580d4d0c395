"""Fitted combiners as PyTorch operations for graphs, in single precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ensemble_kit.combiners import name_of
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.log_proba import LOWEST
from ensemble_kit.errors import UsageError

TINY = torch.finfo(torch.float32).tiny
Combine = Callable[[Any, Tensor], Tensor]


def combined(combiner: Combiner, logits: Tensor) -> Tensor:
    """Probabilities of a fitted combiner, shape (n, n_classes).

    Parameters
    ----------
    logits : Tensor, shape (n, n_members, n_classes)

    Raises
    ------
    UsageError
        The combiner has no form as a graph.
    """
    refuse_no_graph(combiner)
    return _COMBINE[name_of(combiner)](combiner, logits)


def refuse_no_graph(combiner: Combiner) -> None:
    """Raise `UsageError` if a combiner has no form as a graph."""
    name = name_of(combiner)
    inner = getattr(combiner, "inner_", None)
    if isinstance(inner, Combiner):
        refuse_no_graph(inner)
    if name not in _COMBINE:
        raise UsageError(
            f"The method '{name}' cannot be exported as a graph",
            "methods with stored images, trees or pooled features cannot be graphs",
            "Use --format bundle, or another --method, e.g. mean or logistic",
        )


def _constant(array: Any, like: Tensor) -> Tensor:
    # Not `.to(like.device)`: a trace would keep the device of the export.
    return torch.as_tensor(array, dtype=torch.float32).type_as(like)


def _normalised(support: Tensor) -> Tensor:
    total = support.sum(dim=1, keepdim=True)
    even = torch.full_like(support, 1.0 / support.shape[1])
    return torch.where(total > 0, support / total.clamp(min=TINY), even)


def _clipped(logits: Tensor) -> Tensor:
    return logits.log_softmax(dim=2).clamp(min=LOWEST)


def _flat(logits: Tensor) -> Tensor:
    z = _clipped(logits)
    return (z - z.mean(dim=2, keepdim=True)).flatten(1)


def _log(proba: Tensor) -> Tensor:
    return proba.clamp(min=TINY).log()


def _vote(_: Any, logits: Tensor) -> Tensor:
    top = (logits == logits.amax(dim=2, keepdim=True)).float()
    return (top / top.sum(dim=2, keepdim=True)).mean(dim=1)


def _sorted(logits: Tensor) -> Tensor:
    return logits.softmax(dim=2).sort(dim=1).values


def _median(_: Any, logits: Tensor) -> Tensor:
    n = logits.shape[1]
    return _normalised(_sorted(logits)[:, (n - 1) // 2 : n // 2 + 1].mean(dim=1))


def _trimmed(one: Any, logits: Tensor) -> Tensor:
    n = logits.shape[1]
    cut = min(int(one.trim * n), (n - 1) // 2)
    return _normalised(_sorted(logits)[:, cut : n - cut].mean(dim=1))


def _weighted(one: Any, logits: Tensor) -> Tensor:
    weights = _constant(one.weights_, logits)[None, :, None]
    return _normalised((logits.softmax(dim=2) * weights).sum(dim=1))


def _classwise(one: Any, logits: Tensor) -> Tensor:
    return (_clipped(logits) * _constant(one.weights_, logits)).sum(dim=1).softmax(dim=1)


def _temperature(one: Any, logits: Tensor) -> Tensor:
    return (one.scale_ * _log(combined(one.inner_, logits))).softmax(dim=1)


def _calibrated(one: Any, logits: Tensor) -> Tensor:
    scales = _constant(one.scales_, logits)[None, :, None]
    return combined(one.inner_, _log(logits.softmax(dim=2)) * scales)


def _dirichlet(one: Any, logits: Tensor) -> Tensor:
    z = _clipped(logits)
    mapped = [z[:, m] @ _constant(one.maps_[m], z) for m in range(z.shape[1])]
    return combined(one.inner_, torch.stack(mapped, dim=1) + _constant(one.shifts_, z))


def _standardised(one: Any, x: Tensor) -> Tensor:
    return (x - _constant(one.mean_, x)) / _constant(one.scale_, x)


def _logistic(one: Any, logits: Tensor) -> Tensor:
    raw = one.features == "proba"
    x = _standardised(one, logits.softmax(dim=2).flatten(1) if raw else _flat(logits))
    proba = (x @ _constant(one.coefficients_, x) + _constant(one.intercept_, x)).softmax(dim=1)
    return _with_absent(proba, logits, [int(c) for c in one.present_])


def _with_absent(proba: Tensor, logits: Tensor, present: list[int]) -> Tensor:
    if len(present) == proba.shape[1]:
        return proba
    mean = logits.softmax(dim=2).mean(dim=1)
    left = mean[:, present].sum(dim=1, keepdim=True)
    own = proba[:, present] / proba[:, present].sum(dim=1, keepdim=True) * left
    columns = [
        own[:, present.index(c)] if c in present else mean[:, c] for c in range(proba.shape[1])
    ]
    return torch.stack(columns, dim=1)


def _ridge(one: Any, logits: Tensor) -> Tensor:
    x = _standardised(one, _flat(logits))
    scores = x @ _constant(one.coefficients_, x) + _constant(one.intercept_, x)
    return (one.sharpness_ * scores).softmax(dim=1)


def _mlp(one: Any, logits: Tensor) -> Tensor:
    nets, x = one.networks_, _flat(logits)
    members = x.reshape(-1, logits.shape[1], logits.shape[2])
    parts = []
    for k in range(len(nets.b2)):
        start = (members * _constant(nets.pool[k], x)[None, :, None]).sum(dim=1)
        z = (x - _constant(nets.mean[k], x)) / _constant(nets.scale[k], x)
        hidden = (z @ _constant(nets.w1[k], x) + _constant(nets.b1[k], x)).tanh()
        parts.append(
            (start + hidden @ _constant(nets.w2[k], x) + _constant(nets.b2[k], x)).softmax(1)
        )
    return torch.stack(parts).mean(dim=0)


def _two_layer(one: Any, logits: Tensor) -> Tensor:
    predictions = [combined(lower, logits) for lower in one.lower_]
    extra = torch.stack(predictions, dim=1).log().clamp(min=LOWEST)
    joined = torch.cat([_clipped(logits), extra], dim=1) if one.keep_members else extra
    return combined(one.upper_, joined)


_COMBINE: dict[str, Combine] = {
    "best-member": lambda one, z: z[:, one.member_].softmax(dim=1),
    "mean": lambda _, z: z.softmax(dim=2).mean(dim=1),
    "vote": _vote,
    "mean-logits": lambda _, z: z.mean(dim=1).softmax(dim=1),
    "median": _median,
    "trimmed-mean": _trimmed,
    "max": lambda _, z: _normalised(z.softmax(dim=2).amax(dim=1)),
    "min": lambda _, z: _normalised(z.softmax(dim=2).amin(dim=1)),
    "product": lambda _, z: z.log_softmax(dim=2).sum(dim=1).softmax(dim=1),
    "simplex": _weighted,
    "greedy": _weighted,
    "classwise": _classwise,
    "temperature": _temperature,
    "calibrated-members": _calibrated,
    "dirichlet": _dirichlet,
    "logistic": _logistic,
    "ridge": _ridge,
    "mlp": _mlp,
    "two-layer": _two_layer,
}
