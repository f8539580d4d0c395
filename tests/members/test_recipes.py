"""Recipes and members: invalid values, digests, learning rates, class weights and losses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.files import read_toml
from ensemble_kit.images.loading.sampling import SAMPLINGS, epoch_order
from ensemble_kit.members import recipe as recipe_module
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.recipe_sections import Regularize
from ensemble_kit.members.training.losses import class_weights, make_loss
from ensemble_kit.members.training.optim import make_optimizer, plateau_drops, rate_at

# -- values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"epochs": 0}, "epochs"), ({"batch_size": 1}, "batch_size"), ({"learning_rate": 0}, "learning_rate"),
        ({"label_smoothing": 1.0}, "label_smoothing"), ({"schedule": "cosin"}, "schedule"),
        ({"sampling": "over"}, "sampling"), ({"select_on": "test"}, "select_on"),
        ({"optim": {"layer_decay": 0}}, "optim.layer_decay"),
    ],
)  # fmt: skip
def test_an_invalid_value_is_refused_by_its_key(settings: dict[str, object], key: str) -> None:
    with pytest.raises(DataError, match=f"'{key}'"):
        Recipe(**settings)


def test_selection_on_the_held_out_fold_is_stored_as_in_earlier_versions() -> None:
    new, old = Recipe(select_on="held-out-fold"), Recipe.model_validate({"select_on": "kept-fold"})
    assert new == old
    assert new.select_on == "held-out-fold"
    assert new.model_dump()["select_on"] == "kept-fold"


def test_patience_needs_a_validation_split() -> None:
    with pytest.raises(DataError, match="patience is 3 and select_on is 'none'"):
        Recipe(patience=3)
    assert Recipe(patience=3, select_on="inner").patience == 3


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'epoch'.*'epochs'"):
        Recipe(epoch=3)


def test_every_named_recipe_is_valid() -> None:
    presets = read_toml(Path(recipe_module.__file__).with_name("recipes.toml"))
    assert presets
    for name, values in presets.items():
        made = Recipe.preset(name)
        assert made.model_fields_set == set(values)
    assert Recipe.preset("fast", epochs=2).epochs == 2
    with pytest.raises(UsageError, match="Did you mean 'standard'"):
        Recipe.preset("standart")


@pytest.mark.parametrize("table", [{"drop_path": 0.1}, Regularize(drop_path=0.1)])
def test_a_nested_change_keeps_the_other_keys_of_a_preset(table: object) -> None:
    regularize = Recipe.preset("best", regularize=table).regularize
    assert (regularize.drop_path, regularize.ema_decay, regularize.tta) == (0.1, 0.998, "dihedral")
    assert Recipe.preset("best", regularize={"ema_decay": 0.0}).regularize.ema_decay == 0.0


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "x" * 81])
def test_a_member_name_must_be_a_plain_folder_name(name: str) -> None:
    with pytest.raises(DataError, match="'name'"):
        Member("resnet18", name=name)


def test_the_default_name_of_a_member_is_its_network() -> None:
    assert Member("resnet18").name == "resnet18"
    assert Member("resnet18", name="mine").name == "mine"


# -- digests -------------------------------------------------------------------------------


def test_the_digest_depends_on_everything_but_the_name_and_the_path_of_weights(
    tmp_path: Path,
) -> None:
    base = Member("tiny_cnn", image_size=16)
    assert base.digest(16) == Member("tiny_cnn", image_size=16, name="other").digest(16)
    others = [
        Member("tiny_resnet", image_size=16), Member("tiny_cnn", image_size=16, seed=1),
        Member("tiny_cnn", image_size=16, drop_rate=0.1),
        Member("tiny_cnn", image_size=16, recipe=Recipe(epochs=16)),
        Member("tiny_cnn", image_size=16, recipe=Recipe(optim={"name": "sgd"})),
    ]  # fmt: skip
    digests = [base.digest(16), base.digest(32), *(m.digest(16) for m in others)]
    assert len(set(digests)) == len(digests)
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"same bytes")
    one, two = (Member("tiny_cnn", weights=tmp_path / n).digest(16) for n in ("a.pt", "b.pt"))
    assert one == two != base.digest(16)


# -- rates ---------------------------------------------------------------------------------


def rates(recipe: Recipe, steps: int) -> list[float]:
    return [rate_at(s, recipe, steps) for s in range(recipe.epochs * steps)]


def test_the_rate_rises_linearly_and_falls_on_a_cosine() -> None:
    recipe = Recipe(epochs=10, learning_rate=0.2, warmup_epochs=2)
    got = rates(recipe, 5)
    want = [0.2 * (s + 1) / 10 for s in range(10)]
    want += [0.2 * (1 + math.cos(math.pi * s / 40)) / 2 for s in range(40)]
    assert got == pytest.approx(want)
    assert max(got) == 0.2
    assert got[-1] < 0.001


@pytest.mark.parametrize("schedule", ["cosine", "constant", "step", "one-cycle"])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0, 99.0])
def test_a_rate_is_above_zero_and_at_most_its_peak(schedule: str, warmup: float) -> None:
    recipe = Recipe(epochs=3, learning_rate=0.1, warmup_epochs=warmup, schedule=schedule)
    for steps in (1, 2, 7):
        got = rates(recipe, steps)
        assert min(got) > 0
        assert max(got) <= 0.1 + 1e-12


def test_a_constant_rate_is_constant_after_the_warm_up() -> None:
    got = rates(Recipe(epochs=3, learning_rate=0.1, schedule="constant"), 4)
    assert got == pytest.approx([0.025, 0.05, 0.075, *[0.1] * 9])


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_training_shorter_than_its_warm_up_ends_with_a_low_rate(epochs: int) -> None:
    recipe = Recipe(epochs=epochs, learning_rate=0.1, warmup_epochs=9)
    got = [rate_at(step, recipe, 10) for step in range(10 * epochs)]
    assert max(got) == got[5 * epochs - 1] == 0.1
    assert got[-1] < 0.01


@pytest.mark.parametrize("first", [{"warmup_epochs": 5}, {"optim": {"head_only_epochs": 5}}])
def test_a_plateau_counts_epochs_at_the_full_rate_only(first: dict[str, Any]) -> None:
    optim = {"plateau_epochs": 2, **first.get("optim", {})}
    recipe = Recipe(
        **{"epochs": 12, "schedule": "plateau", "select_on": "inner", "learning_rate": 1.0,
           "warmup_epochs": 0, **first, "optim": optim}
    )  # fmt: skip
    got = [rate_at(epoch, recipe, 1, [1.0] * epoch) for epoch in range(12)]
    # The first of these losses is the best so far; each two more without improvement are a drop.
    assert got[5:] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_plateau_drops_counts_epochs_without_improvement() -> None:
    assert plateau_drops([3, 2, 1], 2) == 0
    assert plateau_drops([1, 1, 1], 2) == 1
    assert plateau_drops([1, 2, 2, 2, 2], 2) == 2
    assert plateau_drops([1, 2, 0.5, 2], 2) == 0


# -- optimizer and loss --------------------------------------------------------------------


def test_norms_and_biases_have_no_weight_decay() -> None:
    model = timm.create_model("ek_tiny_cnn", num_classes=2)
    optimizer = make_optimizer(model, Recipe(weight_decay=0.1))
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0), name


def test_the_head_has_its_own_learning_rate() -> None:
    model = timm.create_model("ek_tiny_cnn", num_classes=2)
    optimizer = make_optimizer(model, Recipe(optim={"head_rate": 10.0}), ["fc.weight", "fc.bias"])
    scale = {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    assert {n for n, p in model.named_parameters() if scale[id(p)] == 10.0} == {
        "fc.weight",
        "fc.bias",
    }


def test_an_unknown_optimizer_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'adamv'.*'adam"):
        make_optimizer(nn.Linear(2, 2), Recipe(optim={"name": "adamv"}))


def test_class_weights_equal_scikit_learn_and_average_one_per_sample() -> None:
    labels = np.random.default_rng(0).choice(4, size=300, p=[0.6, 0.25, 0.1, 0.05])
    want = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    got = class_weights(labels, 4)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    for kind in ("balanced", "effective"):
        assert class_weights(labels, 4, kind)[labels].mean() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("sampling", [s for s in SAMPLINGS if s != "none"])
def test_imbalance_is_not_corrected_twice(sampling: str) -> None:
    labels = np.array([0] * 16 + [1] * 4)
    sampled = labels[epoch_order(labels, sampling, shuffle=True, seed=0)]
    assert class_weights(sampled, 2).tolist() == [1.0, 1.0]
    for kind in ("balanced", "effective"):
        with pytest.raises(DataError, match=f"sampling is '{sampling}' and class_weights is"):
            Recipe(sampling=sampling, class_weights=kind)
    Recipe(sampling=sampling)


def test_the_loss_is_cross_entropy_with_its_options() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(labels)
    for settings in ({}, {"label_smoothing": 0.2}, {"class_weights": "balanced"},
                     {"label_smoothing": 0.1, "class_weights": "balanced"}):  # fmt: skip
        weight = torch.from_numpy(class_weights(labels, 3)) if "class_weights" in settings else None
        want = nn.CrossEntropyLoss(weight, label_smoothing=settings.get("label_smoothing", 0.0))  # type: ignore[arg-type]
        got = make_loss(Recipe(**settings), labels, 3, torch.device("cpu"))
        assert got(logits, target) == pytest.approx(float(want(logits, target)), rel=1e-6)


def test_the_focal_loss_follows_its_formula() -> None:
    recipe = Recipe(regularize={"focal_gamma": 2.0})
    loss = make_loss(recipe, np.array([0, 1]), 2, torch.device("cpu"))
    logits = torch.tensor([[2.0, 0.0], [0.5, 1.0]])
    proba = logits.softmax(1)[torch.arange(2), torch.tensor([0, 1])].tolist()
    want = sum(-((1 - p) ** 2) * math.log(p) for p in proba) / 2
    assert float(loss(logits, torch.tensor([0, 1]))) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("margin", [0.0, 20.0, 1000.0])
def test_a_focal_loss_has_finite_gradients_for_any_confidence(gamma: float, margin: float) -> None:
    loss = make_loss(
        Recipe(regularize={"focal_gamma": gamma}), np.array([0, 1]), 2, torch.device("cpu")
    )
    logits = torch.tensor([[margin, 0.0], [margin, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([0, 1]))  # a correct and a wrong prediction
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert float(logits.grad[1, 0]) > 0.1, "a wrong prediction has no gradient"


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("mixed", [False, True])
def test_losses_of_parts_add_up_to_the_loss_of_the_batch(
    gamma: float, smoothing: float, mixed: bool
) -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    recipe = Recipe(
        class_weights="balanced", label_smoothing=smoothing, regularize={"focal_gamma": gamma}
    )
    loss = make_loss(recipe, labels, 3, torch.device("cpu"))
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(labels)
    if mixed:
        soft = nn.functional.one_hot(target, 3).float()
        target = 0.7 * soft + 0.3 * soft.flip(0)
    parts = [
        loss(some, wanted) * loss.weight_of(wanted)
        for some, wanted in zip(logits.split(2), target.split(2), strict=True)
    ]
    whole = loss(logits, target) * loss.weight_of(target)
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_a_focal_loss_with_gamma_near_0_is_the_cross_entropy(soft: bool) -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(labels)
    if soft:
        hot = nn.functional.one_hot(target, 3).float()
        target = 0.7 * hot + 0.3 * hot.flip(0)
    plain, focal = (
        make_loss(
            Recipe(class_weights="balanced", label_smoothing=0.1, regularize={"focal_gamma": gamma}),
            labels, 3, torch.device("cpu"),
        )
        for gamma in (0.0, 1e-6)
    )  # fmt: skip
    assert float(focal(logits, target)) == pytest.approx(float(plain(logits, target)), rel=1e-4)


def test_hard_labels_and_their_one_hot_rows_have_the_same_loss() -> None:
    labels = np.array([0, 1, 2, 1])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    hard = torch.from_numpy(labels)
    for gamma in (0.0, 1.5):
        loss = make_loss(Recipe(regularize={"focal_gamma": gamma}), labels, 3, torch.device("cpu"))
        soft = nn.functional.one_hot(hard, 3).float()
        assert float(loss(logits, soft)) == pytest.approx(float(loss(logits, hard)), rel=1e-6)


def test_pretrained_changes_the_digest_only_with_published_weights() -> None:
    def digest(network: str, pretrained: bool) -> str:
        return Member(network, image_size=16, pretrained=pretrained).digest(16)

    assert digest("resnet18", True) != digest("resnet18", False)
    assert digest("tiny_cnn", True) == digest("tiny_cnn", False)
    assert Member("tiny_cnn").start == "random"
    assert Member("resnet18").start == "timm's weights"
