"""All networks of the catalogue: names, building, and published parameter counts."""

from __future__ import annotations

import pytest
import timm
import torch

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network, head_parameters
from ensemble_kit.members.registry import (
    GROUPS,
    NETWORKS,
    cost,
    expand,
    native_size,
    published_tags,
    timm_name,
)
from ensemble_kit.members.spec_string import make_members

# Millions of parameters with 1,000 classes, as published: Tan & Le 2019 (table 2) and 2021
# (table 10), He et al. 2016, Huang et al. 2017.
PUBLISHED = {
    "efficientnet_b0": 5.3, "efficientnet_b1": 7.8, "efficientnet_b2": 9.1, "efficientnet_b3": 12.2,
    "efficientnet_b4": 19.3, "efficientnetv2_b0": 7.1, "efficientnetv2_b1": 8.1,
    "efficientnetv2_b2": 10.1, "efficientnetv2_b3": 14.4, "efficientnetv2_s": 21.5,
    "resnet18": 11.7, "densenet121": 8.0,
}  # fmt: skip

TWO_CLASSES = ("cnn3_sigmoid", "cnn3_two_sigmoids")  # one sigmoid output


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_of_the_catalogue_builds_with_a_head_for_the_classes(name: str) -> None:
    size, n_classes = native_size(name), 2 if name in TWO_CLASSES else 3
    member = Member(name, pretrained=False)
    with torch.device("meta"):
        model = build_network(member, n_classes, image_size=size)
        assert model.eval()(torch.empty(2, 3, size, size)).shape == (2, n_classes)
    head = head_parameters(model)
    assert head
    assert dict(model.named_parameters())[head[0]].shape[0] == (1 if n_classes == 2 else 3)


@pytest.mark.parametrize("name", TWO_CLASSES)
def test_a_network_with_one_output_refuses_a_third_class(name: str) -> None:
    with torch.device("meta"), pytest.raises(DataError, match="two classes, not 3"):
        build_network(Member(name, pretrained=False), 3, image_size=native_size(name))


@pytest.mark.parametrize(("name", "millions"), PUBLISHED.items())
def test_parameter_counts_are_the_published_ones(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(timm_name(name), num_classes=1000)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_the_macs_of_resnet18_are_the_published_ones() -> None:
    # He et al. 2016, table 1: 1.8 G multiply-adds at 224 px.
    assert cost("resnet18", 224).macs / 1e9 == pytest.approx(1.8, rel=0.02)
    assert cost("resnet18", 448).macs / cost("resnet18", 224).macs == pytest.approx(4, rel=0.01)
    assert cost("resnet18", 224, 10).parameters - cost("resnet18", 224, 2).parameters == 8 * 513


@pytest.mark.parametrize(
    ("network", "millions"), [("resnet18", 2.48), ("efficientnet_b0", 6.75), ("densenet121", 6.90)]
)
def test_activation_counts_are_those_of_timm(network: str, millions: float) -> None:
    assert cost(network, 224, 1000).activations / 1e6 == pytest.approx(millions, abs=0.01)


def test_work_ranks_networks_by_time_better_than_macs() -> None:
    wide, deep = cost("resnet18", 224), cost("efficientnet_b0", 224)
    assert wide.macs > 4 * deep.macs
    assert wide.work < deep.work


def test_groups_hold_known_networks_and_all_holds_no_tiny_ones() -> None:
    for names in GROUPS.values():
        assert set(names) <= set(NETWORKS)
    assert len(GROUPS["efficientnetv1"]) == len(GROUPS["efficientnetv2"]) == 5
    assert set(GROUPS["all"]) == set(PUBLISHED)


def test_groups_are_expanded_in_order_without_duplicates() -> None:
    assert expand(["densenet121", "small", "tiny_cnn", "densenet121", "own"]) == (
        "densenet121", "tiny_cnn", "tiny_resnet", "tiny_mobile", "own",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilenetv3_small_100"])
def test_other_names_of_timm_are_accepted(name: str) -> None:
    assert timm_name(name) == name
    assert native_size(name) == 224


@pytest.mark.parametrize(("name", "near"), [("resnet81", "'resnet18'"), ("densnet121", "'densenet121'"), ("efficientnetv3", "'efficientnetv")])  # fmt: skip
def test_an_unknown_name_gets_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises((DataError, UsageError)) as caught:
        timm_name(name)
    assert near in str(caught.value)
    assert f"'{name}'" in str(caught.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_one_native_size_under_all_its_names(name: str) -> None:
    own = timm_name(name)
    assert native_size(own) == native_size(name)
    for tag in published_tags(name)[:1]:
        assert timm_name(f"{name}.{tag}") == f"{own}.{tag}"
        assert native_size(f"{name}.{tag}") == native_size(f"{own}.{tag}") == native_size(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18.foo", r"'resnet18\.foo'.* a1_in1k, .*resnet18\.a1_in1k"),
        ("efficientnetv2_s.", r"'efficientnetv2_s\.'.* in1k, .*efficientnetv2_s\.in1k"),
        ("tiny_cnn.in1k", r"'tiny_cnn\.in1k'.*'tiny_cnn'\."),
        ("hf-hub:timm/resnet18.a1_in1k", "'hf-hub:timm/resnet18.a1_in1k'"),
        ("local-dir:/there/resnet18", "as in resnet18:weights=PATH"),
    ],
)
def test_unknown_tags_and_addresses_are_refused(name: str, words: str) -> None:
    for function in (timm_name, native_size, published_tags):
        with pytest.raises(DataError, match=words):
            function(name)


def test_a_name_with_a_tag_has_the_weights_of_that_tag() -> None:
    assert published_tags("resnet18.a1_in1k") == ["a1_in1k"]
    assert "a1_in1k" in published_tags("resnet18")
    assert published_tags("tiny_cnn") == []


@pytest.mark.parametrize("name", GROUPS["small"])
@pytest.mark.parametrize(("size", "channels"), [(16, 3), (32, 1), (40, 6)])
def test_small_networks_take_any_size_and_channels(name: str, size: int, channels: int) -> None:
    model = build_network(
        Member(name, pretrained=False), 5, image_size=size, in_channels=channels
    ).eval()
    images = torch.randn(2, channels, size, size)
    features = model.forward_features(images)  # type: ignore[operator]
    assert features.shape[:2] == (2, model.num_features)
    pooled = model.forward_head(features, pre_logits=True)  # type: ignore[operator]
    assert torch.equal(model(images), model.get_classifier()(pooled))  # type: ignore[operator]


def layer_counts(name: str, n_classes: int) -> list[int]:
    """Parameters of each convolution and dense layer at the network's own size."""
    with torch.device("meta"):
        model = build_network(
            Member(name, pretrained=False), n_classes, image_size=native_size(name)
        )
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    return [sum(p.numel() for p in layer.parameters()) for layer in layers]


@pytest.mark.parametrize("name", TWO_CLASSES)
def test_the_binary_cnn_has_the_published_parameters_layer_by_layer(name: str) -> None:
    counts = layer_counts(name, 2)
    assert counts == [896, 18_496, 73_856, 125_960_448, 257]
    assert sum(counts) == 126_053_953


def test_the_flat_cnn_uses_the_whole_last_feature_map() -> None:
    # 1,024 px halved four times: 64 x 64 positions of 64 channels.
    dense = [64 * 64 * 64 * 64 + 64, 64 * 128 + 128, 128 * 256 + 256, 256 * 4 + 4]
    assert layer_counts("basic_cnn_flat", 4) == [224, 1168, 4640, 18_496, *dense]


def test_the_two_binary_cnns_differ_only_in_the_activation_of_the_dense_layer() -> None:
    def kinds(name: str) -> list[type]:
        with torch.device("meta"):
            model = build_network(Member(name, pretrained=False), 2, image_size=32)
        return [type(module) for module in model.modules()]

    pairs = zip(*map(kinds, TWO_CLASSES), strict=True)
    assert [pair for pair in pairs if pair[0] is not pair[1]] == [(torch.nn.ReLU, torch.nn.Sigmoid)]


def test_small_networks_start_from_random_weights() -> None:
    model = build_network(Member("tiny_cnn", pretrained=True), 2, image_size=32)
    assert sum(p.numel() for p in model.parameters()) < 50_000


@pytest.mark.parametrize(("name", "rate"), [("basic_cnn", 0.5), ("cnn4", 0.5), ("ek_cnn4", 0.5), ("cnn3_sigmoid", 0.0), ("resnet18", 0.0)])  # fmt: skip
def test_the_default_dropout_rate_of_a_network_can_be_changed(name: str, rate: float) -> None:
    def dropouts(member: Member) -> set[float]:
        with torch.device("meta"):
            model = build_network(member, 2, image_size=64)
        return {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}

    member = Member(name, pretrained=False)
    assert member.drop_rate == member.model_dump(mode="json")["drop_rate"] == rate
    assert dropouts(member) <= {rate}
    for rate_given in (0.0, 0.2):
        if name != "resnet18":
            assert dropouts(Member(name, pretrained=False, drop_rate=rate_given)) == {rate_given}
    assert Member(**member.model_dump()) == member
    off, own = make_members([f"{name}:drop_rate=0", name])
    assert (off.name, own.name) == (f"{name}-drop_rate0", name)
    assert (off.digest(64) == own.digest(64)) == (rate == 0)


@pytest.mark.parametrize("size", [48, 256])
def test_a_network_of_one_size_refuses_other_sizes(size: int) -> None:
    with pytest.raises(DataError, match=f"{size} px .*224,"):
        cost("vit_tiny_patch16_224", size)
