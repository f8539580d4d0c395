"""The search space: settings of a member, and invalid ranges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.experiment import load_experiment
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.tune.space import PLACES, Space, dimensions, own_values, with_values

CLI = Callable[..., tuple[int, str]]
MEMBER = Member("tiny_cnn", image_size=16, pretrained=False)


@pytest.mark.parametrize("name", PLACES)
def test_every_setting_can_be_set_in_a_member(name: str) -> None:
    axis = dimensions(Space(**{"learning_rate": False, "batch_size": False, name: True}), MEMBER, 1000)[0]  # fmt: skip
    high = axis.choices[-1] if axis.kind == "choice" else axis.high
    low = axis.choices[0] if axis.kind == "choice" else axis.low
    for coordinate in (low, high):
        member = with_values(MEMBER, {name: axis.value(coordinate)})
        assert own_values(member)[name] == axis.value(coordinate)
        others = {k: v for k, v in own_values(member).items() if k != name}
        assert others == {k: v for k, v in own_values(MEMBER).items() if k != name}
        Member(**member.model_dump(exclude={"name"}))  # the values are valid


@pytest.mark.parametrize(
    ("own", "axis", "value"),
    [
        ({"learning_rate": 0.9}, "learning_rate", 0.9),
        ({"batch_size": 4}, "batch_size", 4),
        ({"weight_decay": 0.7}, "weight_decay", 0.7),
    ],
)
def test_a_range_is_widened_to_include_the_own_value(own: Any, axis: str, value: float) -> None:
    member = Member("tiny_cnn", image_size=16, recipe=Recipe(**own))
    found = {d.name: d for d in dimensions(Space(weight_decay=True), member, 1000)}
    assert found[axis].holds(value)


def test_published_weights_and_transformers_have_lower_rates() -> None:
    def high(network: str, **settings: Any) -> float:
        return dimensions(Space(), Member(network, **settings), 1000)[0].high

    assert high("resnet18", pretrained=False) == 0.1
    assert high("resnet18") == 0.01
    assert high("vit_tiny_patch16_224") == 0.003


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"learning_rate": (0.1, 0.01)}, "learning_rate"),
        ({"batch_size": (1, 8)}, "batch_size"),
        ({"augmentation": ("light",)}, "augmentation"),
        ({"learning_rat": True}, "learning_rate"),
        ({"learning_rate": False, "batch_size": False}, "space"),
    ],
)
def test_an_invalid_space_is_refused_by_its_key(given: dict[str, Any], named: str) -> None:
    with pytest.raises(EnsembleKitError, match=named):
        Space(**given)


def test_the_space_is_read_from_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("[tune.space]\nimage_size = [16, 24]\nbatch_size = false\n")
    space = load_experiment(file=path).tune.space
    assert space.searched == ("learning_rate", "image_size")


def test_image_sizes_and_augmentations_are_tried(cli: CLI, slides: Path, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(
        'image_size = [16, 20]\naugmentation = ["light", "none"]\n'
    )
    words = ("--data", slides, "--members", "tiny_cnn", "--image-size", 16, "--epochs", 1, "--folds", 2,
             "--no-pretrained", "--device", "cpu", "--run", "run", "--space", "space.toml")  # fmt: skip
    code, printed = cli("tune", *words, "--trials", 6)
    assert code == 0, printed
    assert "image size 20" in printed
    assert "augmentation none" in printed
