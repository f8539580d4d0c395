"""The explicit gradients and steps of the batched networks, against torch."""

from __future__ import annotations

import numpy as np
import torch

from ensemble_kit.combiners.stacking.mlp_gradients import AdamW, Data, Weights, light

N, MEMBERS, CLASSES, HIDDEN, NETWORKS = 40, 3, 4, 5, 2
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(N, MEMBERS * CLASSES + 2))
ROWS = RNG.integers(0, N, (NETWORKS, 16))
DATA = Data(
    light(FEATURES),
    RNG.integers(0, CLASSES, N),
    light(RNG.random((NETWORKS, MEMBERS))),
    light(np.tile(FEATURES.mean(axis=0), (NETWORKS, 1))),
    light(np.tile(FEATURES.std(axis=0), (NETWORKS, 1))),
)


def some_weights() -> Weights:
    weights = Weights.start(light(RNG.normal(size=(NETWORKS, FEATURES.shape[1], HIDDEN))), CLASSES)
    for one in weights.arrays()[1:]:
        one += light(RNG.normal(size=one.shape))
    return weights


def torch_losses(weights: list[torch.Tensor]) -> torch.Tensor:
    w1, b1, w2, b2 = weights
    own = torch.from_numpy(DATA.features)[torch.from_numpy(ROWS)]
    members = own[..., : MEMBERS * CLASSES].unflatten(2, (MEMBERS, CLASSES))
    start = torch.einsum("kbmc,km->kbc", members, torch.from_numpy(DATA.pool))
    z = (own - torch.from_numpy(DATA.mean)[:, None]) / torch.from_numpy(DATA.scale)[:, None]
    scores = torch.tanh(z @ w1 + b1) @ w2 + b2 + start
    labels = torch.from_numpy(DATA.labels)[torch.from_numpy(ROWS)]
    loss = torch.nn.functional.cross_entropy(
        scores.flatten(0, 1), labels.flatten(), reduction="none"
    )
    return loss.reshape(ROWS.shape).mean(dim=1)


def test_losses_and_gradients_are_those_of_autograd() -> None:
    weights = some_weights()
    theirs = [torch.from_numpy(one.copy()).requires_grad_() for one in weights.arrays()]
    losses = torch_losses(theirs)
    losses.sum().backward()
    share = np.full(ROWS.shape, 1.0 / ROWS.shape[1])
    np.testing.assert_allclose(
        DATA.losses(weights, ROWS, share), losses.detach().numpy(), rtol=1e-5
    )
    for own, other in zip(DATA.gradient(weights, ROWS).arrays(), theirs, strict=True):
        np.testing.assert_allclose(own, other.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_steps_are_those_of_adamw_with_decay_of_the_layers_alone() -> None:
    weights = some_weights()
    w1, b1, w2, b2 = theirs = [
        torch.from_numpy(one.copy()).requires_grad_() for one in weights.arrays()
    ]
    optimizer = torch.optim.AdamW(
        [{"params": [w1, w2], "weight_decay": 0.1}, {"params": [b1, b2], "weight_decay": 0.0}],
        lr=5e-3,
    )
    ours = AdamW(0.1, weights.zeros(), weights.zeros())
    for _ in range(5):
        optimizer.zero_grad()
        torch_losses(theirs).sum().backward()
        optimizer.step()
        ours.step(weights, DATA.gradient(weights, ROWS), 5e-3)
    for own, other in zip(weights.arrays(), theirs, strict=True):
        np.testing.assert_allclose(own, other.detach().numpy(), atol=1e-5)
