"""Parameters and FLOPs of members, compared with their networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError
from ensemble_kit.experiment_data import read_data
from ensemble_kit.files import read_json
from ensemble_kit.manifest.data_settings import DataSettings
from ensemble_kit.manifest.phantom.write import write_phantom
from ensemble_kit.members.architectures.timm_factory import created
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.job_spec import write_spec
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network
from ensemble_kit.members.networks.flops import member_cost
from ensemble_kit.members.preflight import check_members
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.registry import cost


def counted(model: nn.Module, *shape: int) -> tuple[int, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


@pytest.mark.parametrize("head", [(), (32, 16)], ids=str)
@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 64, 3), (48, 48, 6)], ids=str)
def test_the_cost_is_that_of_the_network_on_its_images(
    head: tuple[int, ...], shape: tuple[int, int, int]
) -> None:
    member = Member("tiny_resnet", image_size=32, pretrained=False, head=head)
    model = build_network(member, 3, image_size=32, in_channels=shape[2])
    cost = member_cost(member, 3, shape)
    assert (cost.parameters, cost.macs) == counted(model, shape[2], shape[0], shape[1])


@pytest.mark.parametrize(("tta", "passes"), [("none", 1), ("flips", 4), ("dihedral", 8)])
def test_the_cost_in_the_record_counts_all_tta_views(
    make_job: Callable[..., Job], tta: str, passes: int
) -> None:
    job = make_job(member={"head": (32,)}, regularize={"tta": tta})
    write_spec(job)
    about = read_json(job.run.member_dir(job.member.name) / "member.json")
    model = build_network(job.member, job.manifest.n_classes, image_size=16)
    parameters, macs = counted(model, 3, 16, 16)
    assert about["parameters"] == parameters > cost("tiny_cnn", 16).parameters
    assert about["gmacs"] == round(passes * macs / 1e9, 6)


def test_the_cost_of_finished_members_is_counted_again(trained: Any, tmp_path: Path) -> None:
    copy = trained.copied_to(tmp_path / "copy")
    path = copy.run.member_dir("tiny_cnn") / "member.json"
    about = read_json(path)
    write_checked(path, {**about, "gmacs": 99.0, "parameters": 1})
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=recipe)
    fit_members([member], copy.manifest, copy.folds, copy.run, device="cpu")
    assert read_json(path) == about


def test_a_network_that_needs_square_images_is_refused_before_training(
    tmp_path: Path,
) -> None:
    data = write_phantom(tmp_path / "data", n_patients=12, images_per_patient=1, image_size=32)
    pairs = read_data(DataSettings(path=str(data), stain="both", join="side"))
    check_members([Member("tiny_cnn", image_size=32, pretrained=False)], pairs)
    vit = Member("vit_tiny_patch16_224", image_size=224, pretrained=False)
    with pytest.raises(DataError, match=r"448.*stack or"):
        check_members([vit], pairs)


# Networks with default dropout rates; the last two do not have one of the two settings.
@pytest.mark.parametrize("network", ["rexnet_100", "swin_tiny_patch4_window7_224", "densenet121", "vgg11"])  # fmt: skip
@pytest.mark.parametrize("head", [(), (8,)], ids=str)
def test_a_dropout_rate_of_0_is_0(network: str, head: tuple[int, ...]) -> None:
    size = 224 if "swin" in network else 32
    with torch.device("meta"):
        model = build_network(
            Member(network, image_size=size, pretrained=False, head=head), 2, image_size=size
        )
    rates: list[Any] = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    rates += [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]
    rates += [
        value
        for module in model.modules()
        if isinstance(value := getattr(module, "drop_rate", 0.0), float)
    ]
    assert set(rates) <= {0.0}


def test_a_network_that_is_built_twice_has_the_same_random_weights() -> None:
    torch.manual_seed(0)
    plain = created("densenet121", False, {"num_classes": 2})
    torch.manual_seed(0)
    stated = created("densenet121", False, {"num_classes": 2, "drop_path_rate": 0.0})
    for mine, other in zip(stated.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_an_unsupported_dropout_rate_is_refused() -> None:
    with pytest.raises(TypeError, match="drop_path_rate"):
        created("densenet121", False, {"drop_path_rate": 0.1})
    assert Member("basic_cnn", drop_rate=0.0, recipe=Recipe()).drop_rate == 0.0
