"""Learning rates and weight decay of parameter groups."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network, head_parameters
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training.optim import make_optimizer

DECAY = 0.7


def built(network: str, head: tuple[int, ...] = (), size: int = 32) -> nn.Module:
    with torch.device("meta"):
        return build_network(Member(network, pretrained=False, head=head), 2, image_size=size)


def groups_of(model: nn.Module, **optim: float) -> dict[str, tuple[float, float]]:
    """Rate and decay of each parameter, as multiples of the recipe's."""
    recipe = Recipe(weight_decay=1.0, optim={"name": "sgd", **optim})
    optimizer = make_optimizer(model, recipe, head_parameters(model))
    of = {
        id(p): (g["lr_scale"], g["weight_decay"])
        for g in optimizer.param_groups
        for p in g["params"]
    }
    return {name: of[id(p)] for name, p in model.named_parameters()}


def depths(model: nn.Module) -> dict[str, list[int]]:
    """Number of layer groups after each parameter, by module."""
    out: dict[str, list[int]] = {}
    for name, (scale, _) in groups_of(model, layer_decay=DECAY).items():
        depth = round(float(torch.log(torch.tensor(scale)) / torch.log(torch.tensor(DECAY))))
        out.setdefault(name.rpartition(".")[0], []).append(depth)
    return out


@pytest.mark.parametrize("network", ["resnet18", "densenet121", "tiny_resnet"])
def test_a_dense_head_does_not_change_the_layer_groups_of_the_backbone(network: str) -> None:
    plain, own = depths(built(network)), depths(built(network, head=(8,)))
    backbone = {
        name.removeprefix("body."): d for name, d in own.items() if name.startswith("body.")
    }
    assert backbone == {name: d for name, d in plain.items() if name in backbone}
    assert own["head.0"] == own["head.3"] == [0, 0]


@pytest.mark.parametrize("network", ["densenet121", "efficientnet_b4", "efficientnetv2_s"])
@pytest.mark.parametrize("head", [(), (8,)], ids=str)
def test_every_layer_of_a_deep_network_has_a_learning_rate(
    network: str, head: tuple[int, ...]
) -> None:
    model = built(network, head)
    scales = {name: scale for name, (scale, _) in groups_of(model, layer_decay=DECAY).items()}
    assert 5 <= len(set(scales.values())) <= 12
    assert min(scales.values()) > 0.02
    assert {scales[name] for name in head_parameters(model)} == {1.0}


def test_timm_groups_the_layers_of_a_backbone_without_groups() -> None:
    scales = {d for ds in depths(built("pit_ti_224", head=(8,), size=224)).values() for d in ds}
    assert scales == set(range(max(scales) + 1))
    assert max(scales) > 10


@pytest.mark.parametrize("network", ["tiny_cnn", "tiny_resnet", "tiny_mobile"])
def test_each_stage_of_a_small_network_is_a_layer(network: str) -> None:
    stages = 4 if network == "tiny_mobile" else 3
    for name, found in depths(built(network)).items():
        want = 0 if name == "fc" else stages - int(name.split(".")[1]) // 2
        assert set(found) == {want}, name


def test_stages_and_dense_layers_are_layer_groups() -> None:
    assert depths(built("cnn4")) == {
        "stages.0": [5, 5], "stages.1": [5, 5], "stages.4": [4, 4], "stages.5": [4, 4],
        "stages.8": [3, 3], "stages.9": [3, 3], "stages.12": [2, 2], "stages.13": [2, 2],
        "dense.1": [1, 1], "fc": [0, 0],
    }  # fmt: skip
    assert depths(built("basic_cnn")) == {
        "stages.0": [7, 7], "stages.3": [6, 6], "stages.6": [5, 5], "stages.9": [4, 4],
        "dense.1": [3, 3], "dense.4": [2, 2], "dense.7": [1, 1], "fc": [0, 0],
    }  # fmt: skip


@pytest.mark.parametrize("layer_decay", [1.0, DECAY])
@pytest.mark.parametrize("head", [(), (8,)])
def test_parameters_that_a_network_exempts_have_no_weight_decay(
    layer_decay: float, head: tuple[int, ...]
) -> None:
    model = built("vit_tiny_patch16_224", head, size=224)
    decays = {n: d for n, (_, d) in groups_of(model, layer_decay=layer_decay).items()}
    prefix = "body." if head else ""
    exempt = {prefix + name for name in ("pos_embed", "cls_token")}
    for name, parameter in model.named_parameters():
        assert decays[name] == float(parameter.ndim > 1 and name not in exempt), name


def test_both_heads_of_a_distilled_network_learn_at_the_head_s_rate() -> None:
    model = built("deit_tiny_distilled_patch16_224", size=224)
    fast = {name for name, (scale, _) in groups_of(model, head_rate=10.0).items() if scale == 10}
    assert fast == {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}


def test_a_plain_network_has_the_groups_of_timm() -> None:
    model = timm.create_model("resnet18", num_classes=2)
    theirs = timm.optim.create_optimizer_v2(
        model, "sgd", lr=1.0, weight_decay=1.0, layer_decay=DECAY
    )
    want = {id(p): g["lr_scale"] for g in theirs.param_groups for p in g["params"]}
    got = groups_of(model, layer_decay=DECAY)
    assert {n: s for n, (s, _) in got.items()} == {
        n: want[id(p)] for n, p in model.named_parameters()
    }
