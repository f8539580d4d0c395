"""Short forms of members: their names, and equal members from all ways to write one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.experiment import Experiment, load_experiment
from ensemble_kit.members.member import Member
from ensemble_kit.members.naming import name_of, stored_name
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.spec_string import make_members, read_short_form

pytestmark = pytest.mark.slow

NAMES = {
    "resnet18": "resnet18",
    "resnet18:seed=0": "resnet18",
    "resnet18:seed=1": "resnet18-s1",
    "resnet18:bag": "resnet18-bag",
    "resnet18:bag:seed=2": "resnet18-bag2",
    "resnet18:seed=2:bag": "resnet18-bag2",
    "resnet18:size=128": "resnet18-128px",
    "resnet18:image_size=128": "resnet18-128px",
    "resnet18:color=hed": "resnet18-hed",
    "resnet18:color=hed:size=128": "resnet18-128px-hed",
    "resnet18:stain_norm=macenko": "resnet18-macenko",
    "resnet18:stain_norm=none": "resnet18-no-stain_norm",
    "resnet18:stain=ihc": "resnet18-ihc",
    "resnet18:schedule=cyclic:snapshots=3": "resnet18-cyclic-snap3",
    "resnet18:ema_decay=0.99:average_beside": "resnet18-ema0.99-raw",
    "resnet18:epochs=30": "resnet18-epochs30",
    "resnet18:learning_rate=1e-3": "resnet18-learning_rate0.001",
    "resnet18:pretrained=false": "resnet18-no-pretrained",
    "resnet18:augmentation=stain": "resnet18-augmentation-stain",
    "resnet18:weights=there/mine.pt": "resnet18-weights-mine",
    "resnet18:preset=best": "resnet18-best",
    "resnet18:preset=best:seed=1": "resnet18-best-s1",
    "resnet18:seed=1:name=second": "second",
}


@pytest.mark.parametrize(("text", "name"), NAMES.items())
def test_a_member_is_named_by_the_settings_that_differ(text: str, name: str) -> None:
    assert make_members([text])[0].name == name
    assert Experiment(members=[text]).resolved_members()[0].name == name


def test_a_short_form_sets_all_its_values() -> None:
    (member,) = make_members(
        ["tiny_cnn:size=24:seed=3:bag:color=lab:epochs=7:ema_decay=0.9:clip_norm=1.5:drop_rate=0.1"],
        recipe=Recipe(epochs=2, batch_size=8), image_size=16, pretrained=False,
    )  # fmt: skip
    want = Member(
        "tiny_cnn", name=member.name, image_size=24, seed=3, bag=True, color="lab", drop_rate=0.1,
        pretrained=False,
        recipe=Recipe(
            epochs=7, batch_size=8, optim={"clip_norm": 1.5}, regularize={"ema_decay": 0.9}
        ),
    )  # fmt: skip
    assert member == want
    assert member.digest(24) == want.digest(24)


@pytest.mark.parametrize(
    "text",
    ["tiny_cnn:preset=best:epochs=2:ema_decay=0.9", "tiny_cnn:epochs=2:ema_decay=0.9:preset=best"],
)
def test_keys_override_a_preset_and_a_preset_overrides_the_shared_recipe(text: str) -> None:
    (member,) = make_members([text], recipe=Recipe(epochs=4, batch_size=8, label_smoothing=0.3))
    want = Recipe.preset("best", epochs=2, batch_size=8, regularize={"ema_decay": 0.9})
    assert member.recipe == want
    assert (member.recipe.regularize.tta, member.recipe.label_smoothing) == ("dihedral", 0.1)


def test_settings_after_a_group_apply_to_all_its_networks() -> None:
    names = [m.name for m in make_members(["small:seed=1", "resnet18"])]
    assert names == ["tiny_cnn-s1", "tiny_resnet-s1", "tiny_mobile-s1", "resnet18"]


def test_the_constructor_uses_the_same_names() -> None:
    assert Member("resnet18", seed=1).name == "resnet18-s1"
    assert Member("resnet18", bag=True, seed=2).name == "resnet18-bag2"
    assert Member("resnet18", color="hed", stain="he", stain_norm="macenko").name == (
        "resnet18-he-macenko-hed"
    )
    assert Member("resnet18", seed=1, name="mine").name == "mine"


def test_shared_settings_are_not_in_names() -> None:
    assert Member("resnet18", image_size=64, recipe=Recipe(epochs=3)).name == "resnet18"
    shared = Experiment(members=["resnet18", "small"], image_size=64, recipe={"snapshots": 2})
    names = [m.name for m in shared.resolved_members()]
    assert names == ["resnet18", "tiny_cnn", "tiny_resnet", "tiny_mobile"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resnet18:sed=1", r"'resnet18:sed=1'.*'seed'\?"),
        ("resnet18:bagg", r"Did you mean 'bag'\?"),
        ("resnet18:seed", "'seed'.*resnet18:seed=VALUE"),
        ("resnet18:preset=bets", r"Did you mean 'best'\?"),
        ("resnet18:recipe=x", r"NETWORK\[:KEY=VALUE\]"),
    ],
)
def test_an_invalid_short_form_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_short_form(text)


@pytest.mark.parametrize("place", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/there/resnet18"])
def test_an_address_in_place_of_a_network_is_refused(place: str) -> None:
    table = {"there": {"network": place}}
    for write in (
        lambda: make_members([place]),
        lambda: Member(place),
        lambda: Experiment(members=["there"], member=table).resolved_members(),
    ):
        with pytest.raises(DataError, match=f"'{place}'.*resnet18:weights=PATH"):
            write()


def test_invalid_values_are_refused_with_the_member_s_name() -> None:
    with pytest.raises(DataError, match=r"5 .*'member\.there\.network'"):
        Experiment(members=["there"], member={"there": {"network": 5}}).resolved_members()
    with pytest.raises(DataError, match=r"'hde'.*'member.resnet18-hde.color'"):
        Experiment(members=["resnet18:color=hde"]).resolved_members()
    with pytest.raises(DataError, match="snapshots is 0"):
        make_members(["resnet18:schedule=cyclic"])


def test_the_settings_file_and_flags_give_the_same_members(tmp_path: Path) -> None:
    file = tmp_path / "ensemble-kit.toml"
    file.write_text(
        'members = ["resnet18", "mine", "mine:seed=1", "resnet18:color=hed:epochs=3"]\n'
        "[recipe]\nepochs = 5\n"
        '[member.mine]\nnetwork = "densenet121"\nrecipe = { learning_rate = 1e-3 }\n'
    )
    plain, mine, second, hed = load_experiment(file=file).resolved_members()
    assert [m.name for m in (plain, mine, second, hed)] == [
        "resnet18", "mine", "mine-s1", "resnet18-hed-epochs3"]  # fmt: skip
    assert second == mine.model_copy(update={"name": "mine-s1", "seed": 1})
    assert (mine.network, mine.recipe.learning_rate, mine.recipe.epochs) == ("densenet121", 1e-3, 5)
    assert (hed.network, hed.color, hed.recipe.epochs) == ("resnet18", "hed", 3)
    flagged = load_experiment({"members": ("mine:seed=1",)}, file=file).resolved_members()
    assert flagged == [second]
    with pytest.raises(DataError, match=r"\[member\.mine\]"):
        load_experiment({"member": {"mine": {"seed": 1}}}, use_file=False).resolved_members()


def test_a_member_is_found_by_its_name(tmp_path: Path) -> None:
    experiment = Experiment(run=str(tmp_path), members=["resnet18", "resnet18:seed=1:color=lab"])
    assert experiment.resolved_member("resnet18-lab-s1") == experiment.resolved_members()[1]
    assert (
        experiment.resolved_member("resnet18:color=lab:seed=1")
        == (experiment.resolved_members()[1])
    )


def test_two_members_of_one_name_are_refused_with_advice(
    cli: Callable[..., tuple[int, str]],
) -> None:
    code, printed = cli("train-members", "--members", "tiny_cnn,tiny_cnn:seed=0", "--epochs", 1)
    assert code == 2
    assert "tiny_cnn" in printed
    assert "tiny_cnn:name=other" in printed


def test_the_plan_lists_extra_checkpoints(cli: Callable[..., tuple[int, str]]) -> None:
    code, printed = cli(
        "train-members", "--dry-run", "--members",
        "tiny_cnn,tiny_cnn:color=grayscale,tiny_cnn:snapshots=3:ema_decay=0.9:average_beside",
    )  # fmt: skip
    assert code == 0, printed
    name = "tiny_cnn-snap3-ema0.9-raw"
    assert f": {name}@snap1, {name}@snap2, {name}@ema" in printed
    assert "3 members x 3 folds = 9 jobs" in printed


def test_extra_checkpoints_are_named_after_their_member() -> None:
    assert stored_name(name_of("resnet18", {"seed": 1}), "snap2") == "resnet18-s1@snap2"
