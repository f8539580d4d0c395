"""Invalid members are refused before anything is written, with the right exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ensemble_kit.errors import DataError, EnsembleKitError, EnvironmentFault
from ensemble_kit.members import preflight
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks import flops as cost
from ensemble_kit.members.networks.build import build_network
from ensemble_kit.members.preflight import check_members
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run


def member(network: str = "tiny_cnn", recipe: dict[str, Any] | None = None, **more: Any) -> Member:
    return Member(network, **{"image_size": 16, **more}, recipe=Recipe(epochs=2, **(recipe or {})))


MISTAKES = [
    (member(recipe={"optim": {"name": "adamv"}}), 2, r"'adamv'.*'adam"),
    (member(recipe={"optim": {"name": "lookahead_adamv"}}), 2, "'lookahead_adamv'"),
    (member(recipe={"optim": {"name": "adahessian"}}), 2, "'adahessian'"),
    (member(recipe={"optim": {"name": "lookahead_adahessian"}}), 2, "lookahead_adahessian"),
    (member(recipe={"augmentation": "lite"}), 2, "'lite'"),
    (member(recipe={"regularize": {"drop_path": 0.1}}), 3, "'tiny_cnn' .*drop_path"),
    (member("cnn4", image_size=8), 3, "8 px .*'cnn4'"),
    (member("cnn3_sigmoid", recipe={"regularize": {"eval_size": 48}}, image_size=32), 3,
     "'cnn3_sigmoid' .* 48 px"),
    (member("cnn4", image_size=32, recipe={"regularize": {"eval_size": 8}}), 3, "8 px .*'cnn4'"),
    (member("cnn3_sigmoid", image_size=32, head=(8,)), 3, "'cnn3_sigmoid' .*one sigmoid output"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "code", "words"), MISTAKES, ids=[str(m[2]) for m in MISTAKES])
def test_invalid_members_are_refused_before_the_run_is_created(
    trained: Any, tmp_path: Path, wrong: Member, code: int, words: str
) -> None:
    run = Run(tmp_path / "run")
    fine = member(name="fine")
    with pytest.raises(EnsembleKitError, match=words) as caught:
        fit_members([fine, wrong], trained.manifest, trained.folds, run, device="cpu")
    assert caught.value.exit_code == code
    assert not run.path.exists()


@pytest.mark.parametrize("name", ["fusedadam", "bnbadam"])
def test_an_optimizer_without_its_device_or_package_is_refused(
    trained: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EnvironmentFault, match=rf"'{name}' ") as caught:
        check_members([member(recipe={"optim": {"name": name}})], trained.manifest)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("network", "size", "fault"),
    [
        ("vit_tiny_patch16_224", 224, "64 px"),
        ("inception_v4", 80, "64 px"),
    ],
)
def test_a_network_of_few_sizes_accepts_a_dense_head(
    trained: Any, network: str, size: int, fault: str
) -> None:
    check_members([member(network, image_size=size, head=(8,))], trained.manifest)
    with pytest.raises(DataError, match=rf"(?=.*'{network}').*{fault}"):
        check_members([member(network, image_size=64, head=(8,))], trained.manifest)


def test_unsupported_settings_of_a_head_are_refused(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deit = {"network": "deit_tiny_distilled_patch16_224", "image_size": 224}
    check_members([member(**deit, recipe={"optim": {"head_only_epochs": 1}})], trained.manifest)
    cached = {"head_only_epochs": 1, "cache_features": True}
    with pytest.raises(DataError, match=r"VisionTransformerDistilled .* = false"):
        check_members([member(**deit, recipe={"optim": cached})], trained.manifest)
    check_members([member(**deit, head=(8,), recipe={"optim": cached})], trained.manifest)
    monkeypatch.setattr(preflight, "head_parameters", lambda _: [])
    for optim in ({"head_only_epochs": 1}, {"head_rate": 10.0}):
        with pytest.raises(DataError, match=r"'tiny_cnn'.*head_only_epochs"):
            check_members([member(recipe={"optim": optim})], trained.manifest)


def test_an_initial_checkpoint_of_another_network_is_refused(trained: Any, tmp_path: Path) -> None:
    other = build_network(member("tiny_resnet"), 2, image_size=16)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"other\.safetensors' .*stages\.0"):
        check_members([member(weights=tmp_path / "other.safetensors")], trained.manifest)
    check_members([member("tiny_resnet", weights=tmp_path / "other.safetensors")], trained.manifest)


def test_valid_members_pass_without_using_the_global_generator(trained: Any) -> None:
    state = torch.get_rng_state()
    good = [
        member(),
        member("tiny_mobile", head=(8,), drop_rate=0.5),
        member("resnet18", image_size=64, recipe={"regularize": {"drop_path": 0.1}}),
        member("cnn4", color="hed", recipe={"regularize": {"eval_size": 24}}),
        member("tiny_cnn", color="grayscale", drop_rate=0.2),
    ]
    check_members(good, trained.manifest)
    assert torch.equal(torch.get_rng_state(), state)


def test_equal_networks_are_built_once(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Member] = []

    def build(one: Member, *given: Any, **more: Any) -> torch.nn.Module:
        built.append(one)
        return build_network(one, *given, **more)

    monkeypatch.setattr(cost, "build_network", build)
    alike = [member(drop_rate=0.123, seed=s, name=f"m{s}") for s in range(3)]
    check_members([member(), *alike], trained.manifest)
    check_members(alike, trained.manifest)
    assert len(built) == 1


def test_the_command_line_refuses_invalid_members_before_its_plan(
    cli: Callable[..., tuple[int, str]], slides: Path
) -> None:
    train = ("train-members", "--data", slides, "--no-pretrained", "--dry-run", "--image-size")
    code, printed = cli(*train, 8, "--members", "cnn4")
    assert code == 3
    assert "8 px" in printed
    assert "'cnn4'" in printed
    assert "Traceback" not in printed
    assert "Plan:" not in printed
    code, printed = cli(*train, 16, "--members", "tiny_cnn", "--weights", "nothere.pt")
    assert code == 4
    assert "nothere.pt" in printed
    code, printed = cli(*train, 16, "--members", "tiny_cnn:drop_path=0.1")
    assert code == 3
    assert "'tiny_cnn'" in printed
    assert "drop_path" in printed
