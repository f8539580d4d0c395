"""The list of networks: what each costs, and where its weights come from."""

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


def test_a_network_costs_the_same_by_the_name_that_timm_gives_it(cli: CLI) -> None:
    printed = cli("members", "list", "efficientnetv2_b0,tf_efficientnetv2_b0", "--json")[1]
    one, other = json.loads(printed)
    assert one == {**other, "member": "efficientnetv2_b0"}


@pytest.mark.parametrize("size", [-3, 0, 1])
def test_a_batch_that_no_network_trains_on_is_refused(cli: CLI, size: int) -> None:
    code, printed = cli("members", "list", "tiny_cnn", "--measure", "--batch-size", size)
    assert code == 2
    assert f"{size} is not in the range x>=2" in printed


def test_a_tag_that_is_not_published_is_refused_with_those_that_are(cli: CLI) -> None:
    code, printed = cli("members", "list", "resnet18.foo")
    assert code == 3
    assert "Choose one, e.g. resnet18.a1_in1k" in " ".join(printed.split())
