"""The list of networks: their cost and their published weights."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

CLI = Callable[..., tuple[int, str]]


def test_a_name_with_a_tag_is_listed_with_the_weights_of_that_tag(cli: CLI) -> None:
    code, printed = cli("members", "list", "resnet18.a1_in1k,tiny_cnn")
    assert code == 0
    tagged, own = printed.splitlines()[1:]
    assert tagged.split()[-1] == "a1_in1k"
    assert own.endswith("none (random weights)")


def test_a_network_costs_the_same_under_its_name_in_timm(cli: CLI) -> None:
    printed = cli("members", "list", "efficientnetv2_b0,tf_efficientnetv2_b0", "--json")[1]
    one, other = json.loads(printed)
    assert one == {**other, "member": "efficientnetv2_b0"}


@pytest.mark.parametrize("size", [-3, 0, 1])
def test_a_batch_size_below_two_is_refused(cli: CLI, size: int) -> None:
    code, printed = cli("members", "list", "tiny_cnn", "--measure", "--batch-size", size)
    assert code == 2
    assert f"{size} is not in the range x>=2" in printed


def test_an_unpublished_tag_is_refused_with_a_published_one(cli: CLI) -> None:
    code, printed = cli("members", "list", "resnet18.foo")
    assert code == 3
    assert "resnet18.a1_in1k" in " ".join(printed.split())
