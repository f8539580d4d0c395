"""Maps of one network: equal to captum's maps, linear in the score, and at the right position."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from captum.attr import LayerGradCam
from torch import Tensor, nn

from ensemble_kit.errors import DataError, EnvironmentFault, UsageError
from ensemble_kit.explanation.class_activation import gradcam, hooked_pass
from ensemble_kit.explanation.input_attribution import STEPS
from ensemble_kit.explanation.methods import METHODS, check_method, pass_of
from ensemble_kit.explanation.target_layer import target_layer


def network(name: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model(name, num_classes=3, **settings)
    return made.eval().requires_grad_(False)


def some_images(side: int = 32, n: int = 2) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def towards(c: int, n: int = 2) -> Tensor:
    out = torch.zeros(1, n, 3)
    out[:, :, c] = 1
    return out


def maps_of(method: str, model: nn.Module, images: Tensor, directions: Tensor) -> Tensor:
    return pass_of(method, model, images, torch.ones_like(images[:1]), name="it").maps(directions)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "resnet18"])
def test_gradcam_equals_captum(name: str) -> None:
    model, images = network(name), some_images(64)
    ours = maps_of("gradcam", model, images, towards(2))[0]
    layer = target_layer(model).module
    theirs = LayerGradCam(model.requires_grad_(True), layer).attribute(images, target=2)
    torch.testing.assert_close(ours, theirs[:, 0].detach(), rtol=1e-3, atol=1e-6)


def test_integrated_gradients_equal_captum() -> None:
    model, images = network("ek_tiny_cnn"), some_images()
    theirs = CaptumIntegratedGradients(model).attribute(
        images, torch.ones_like(images), target=1, n_steps=STEPS, method="riemann_middle"
    )
    ours = maps_of("integrated-gradients", model, images, towards(1))[0]
    torch.testing.assert_close(ours, theirs.sum(dim=1).float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["ek_tiny_resnet", "ek_cnn4"])
def test_shap_values_sum_to_the_difference_of_the_score_to_white(name: str) -> None:
    model, images = network(name), some_images()
    before = [one.clone() for one in model.parameters()]
    found = maps_of("shap", model, images, towards(1))[0].sum(dim=(1, 2))
    white = model(torch.ones_like(images[:1]))[:, 1]
    torch.testing.assert_close(found, model(images)[:, 1] - white, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not any(one._forward_hooks for one in model.modules())


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_shap_refuses_networks_with_unknown_layers(name: str) -> None:
    model = network(name, img_size=64) if "vit" in name else network(name)
    with pytest.raises(DataError, match="'it'") as caught:
        maps_of("shap", model, some_images(64), towards(1))
    assert "gradientshap" in caught.value.advice


def test_shap_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"ensemble-kit\[shap\]") as caught:
        check_method("shap")
    assert caught.value.exit_code == 4


def test_gradientshap_of_a_linear_network_is_gradient_times_mean_difference() -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, 3)), some_images(4)
    weights = model[1].weight[2].detach().view(3, 4, 4)
    mean = images.mean(dim=(2, 3), keepdim=True)
    want = (weights * (images - (torch.ones_like(images) + mean) / 2)).sum(dim=1)
    torch.testing.assert_close(maps_of("gradientshap", model, images, towards(2))[0], want)


class LooksAtCorner(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        corner = images[:, :, :4, -4:].mean(dim=(1, 2, 3))
        return torch.stack([corner, -corner, 0 * corner], dim=1)


@pytest.mark.parametrize("method", ["occlusion", "gradientshap", "integrated-gradients"])
def test_pixels_that_a_network_ignores_are_zero(method: str) -> None:
    found = maps_of(method, LooksAtCorner(), some_images(), towards(0))[0].abs()
    scale = 32 // found.shape[1]
    corner = found[:, : 4 // scale, -4 // scale :].sum(dim=(1, 2))
    torch.testing.assert_close(corner, found.sum(dim=(1, 2)))
    assert (corner > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_map_does_not_depend_on_the_batch(method: str) -> None:
    model, images = network("ek_tiny_cnn"), some_images(n=3)
    together = maps_of(method, model, images, towards(1, 3))[0, 1:2]
    alone = maps_of(method, model, images[1:2], towards(1, 1))[0]
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "layercam"])
def test_maps_are_linear_in_the_score(method: str) -> None:
    model, images = network("ek_tiny_cnn"), some_images()
    a, b = towards(0), towards(1)
    first, second, both = maps_of(method, model, images, torch.cat([a, b, 2 * a - b]))
    torch.testing.assert_close(both, 2 * first - second, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "layer", "grid"),
    [
        ("test_vit", {"img_size": 64}, "norm1", (4, 4)),
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 1}, "blocks.0.norm1", (4, 4)),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "window_size": 2, "depths": (1, 1), "num_heads": (1, 2)},
            "layers.1.blocks.0.norm1",
            (8, 8),
        ),
        (
            "swinv2_tiny_window8_256",
            {"img_size": 64, "window_size": 4, "depths": (1, 1), "num_heads": (1, 2)},
            "layers.1",
            (8, 8),
        ),
        ("resnet18", {}, "layer4", (2, 2)),
        ("densenet121", {}, "features.norm5", (2, 2)),
        ("ek_cnn4", {}, "stages.14", (8, 8)),
        ("ek_tiny_resnet", {}, "stages.4", (16, 16)),
    ],
)
def test_the_target_layer_and_its_grid(
    name: str, settings: dict[str, object], layer: str, grid: tuple[int, int]
) -> None:
    model = network(name, **settings)
    assert target_layer(model).name.endswith(layer)
    found = maps_of("gradcam", model, some_images(64), towards(0))
    assert found.shape == (1, 2, *grid)
    assert found.abs().amax() > 0


def test_prefix_tokens_are_removed_and_patches_stay_in_order() -> None:
    model = network("vit_tiny_patch16_224", img_size=64, depth=2)
    target = target_layer(model)
    one = hooked_pass(model, target, some_images(64), gradcam)
    assert one.features.shape[1] == 17
    grid = target.as_grid(one.features, (64, 64))
    torch.testing.assert_close(grid[:, :, 1, 2], one.features[:, 1 + 4 + 2])


def test_layercam_weighs_each_cell_by_its_own_positive_gradient() -> None:
    model, images = network("test_resnet"), some_images(64)
    one = hooked_pass(model, target_layer(model), images, gradcam)
    (slope,) = torch.autograd.grad(one.logits[:, 0].sum(), one.features, retain_graph=True)
    want = (slope.clamp(min=0) * one.features).sum(dim=1).detach()
    torch.testing.assert_close(maps_of("layercam", model, images, towards(0))[0], want)


def test_a_network_without_a_target_layer_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="my_net"):
        pass_of("gradcam", nn.Linear(2, 2), some_images(), some_images(), name="my_net")


class OneStage(nn.Module):
    feature_info = ({"module": "stage", "num_chs": 3, "reduction": 1},)

    def __init__(self, stage: nn.Module, *, used: bool = True) -> None:
        super().__init__()
        self.stage, self.used = stage, used

    def forward(self, images: Tensor) -> Tensor:
        found = self.stage(images) if self.used else images
        return (found[0] if isinstance(found, tuple) else found).flatten(1)[:, :3]


class Twice(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


@pytest.mark.parametrize(
    "model",
    [OneStage(Twice()), OneStage(nn.Identity(), used=False), OneStage(nn.Flatten())],
    ids=["several arrays", "not used", "no grid"],
)
def test_a_layer_without_a_grid_is_refused_with_its_network(model: nn.Module) -> None:
    images = some_images()
    with pytest.raises(DataError, match=r"'stage'.*'my_net'") as caught:
        pass_of("gradcam", model, images, images, name="my_net").maps(towards(0))
    assert "gradientshap" in caught.value.advice


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="gradcamm") as caught:
        check_method("gradcamm")
    assert caught.value.exit_code == 2
    assert "gradcam" in caught.value.advice


def test_a_hooked_pass_has_the_logits_of_the_network() -> None:
    model, images = network("test_resnet"), some_images(64)
    np.testing.assert_allclose(
        hooked_pass(model, target_layer(model), images, gradcam).logits.detach(), model(images)
    )
