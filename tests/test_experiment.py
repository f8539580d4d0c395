"""An experiment from a settings file and flags: precedence, refused values, tuned values, data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.experiment import Experiment, config_of, load_experiment
from ensemble_kit.experiment_data import prepare
from ensemble_kit.files import read_toml
from ensemble_kit.images.augmentation.presets import Augmentation, preset
from ensemble_kit.manifest.data_settings import EMBEDDED
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.registry import GROUPS
from ensemble_kit.run import Run
from ensemble_kit.tune.best import write_best


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(text: str) -> Path:
    file = Path("ensemble-kit.toml")
    file.write_text(text)
    return file


def refused(text: str, flags: dict[str, Any] | None = None) -> str:
    settings(text)
    with pytest.raises(DataError) as caught:
        load_experiment(flags).resolved_members()
    return str(caught.value)


# -- precedence ----------------------------------------------------------------------------


def test_the_defaults_are_embedded_data_and_small_networks() -> None:
    experiment = load_experiment()
    assert experiment.data.path in EMBEDDED
    assert experiment.run_path.parent == Path("checkpoints")
    members = experiment.resolved_members()
    assert [m.network for m in members] == list(GROUPS["small"])
    assert not any(m.pretrained for m in members)


def test_own_data_use_all_networks_with_published_weights() -> None:
    experiment = load_experiment({"data": {"path": "some/Breast Slides"}})
    assert [m.name for m in experiment.resolved_members()] == list(GROUPS["all"])
    assert experiment.pretrained
    assert experiment.data.folds == 5
    assert experiment.run_path == Path("checkpoints/breast-slides")


def test_a_flag_wins_over_the_file_and_the_file_over_the_default() -> None:
    settings("seed = 3\n[recipe]\nepochs = 7\nbatch_size = 8\n[data]\nfolds = 4\n")
    experiment = load_experiment({"recipe": {"epochs": 9}, "seed": None, "data": {"folds": None}})
    assert experiment.recipe.epochs == 9
    assert (experiment.recipe.batch_size, experiment.seed, experiment.data.folds) == (8, 3, 4)
    assert experiment.data.test_size == 0.2


def test_false_and_zero_are_values_and_none_is_not() -> None:
    settings("pretrained = true\nseed = 5\n[data]\npath = 'x'\n")
    assert load_experiment({"pretrained": False, "seed": 0}).pretrained is False
    assert load_experiment({"pretrained": False, "seed": 0}).seed == 0
    assert load_experiment({"pretrained": None, "seed": None}).seed == 5


def test_a_named_file_is_read_instead_of_the_folder_s() -> None:
    settings("seed = 1\n")
    Path("other.toml").write_text("seed = 2\n")
    assert load_experiment(file=Path("other.toml")).seed == 2
    assert load_experiment(use_file=False).seed == 0


def test_a_member_s_own_table_wins_over_the_shared_recipe() -> None:
    settings(
        "members = ['tiny_cnn', 'twin']\nimage_size = 24\n[recipe]\nepochs = 4\nbatch_size = 8\n"
        "[member.twin]\nnetwork = 'tiny_cnn'\nseed = 1\nimage_size = 16\n"
        "[member.twin.recipe]\nepochs = 2\n"
    )
    first, twin = load_experiment().resolved_members()
    assert (first.network, first.image_size, first.recipe.epochs) == ("tiny_cnn", 24, 4)
    assert (twin.name, twin.network, twin.seed, twin.image_size) == ("twin", "tiny_cnn", 1, 16)
    assert (twin.recipe.epochs, twin.recipe.batch_size) == (2, 8)


def test_a_member_s_nested_table_changes_single_keys_of_the_shared_one() -> None:
    settings(
        "members = ['tiny_cnn', 'twin']\n[recipe.regularize]\ndrop_path = 0.1\nema_decay = 0.5\n"
        "[member.twin]\nnetwork = 'tiny_cnn'\n[member.twin.recipe.regularize]\nema_decay = 0.9\n"
    )
    first, twin = (m.recipe.regularize for m in load_experiment().resolved_members())
    assert (first.drop_path, first.ema_decay) == (0.1, 0.5)
    assert (twin.drop_path, twin.ema_decay) == (0.1, 0.9)


def test_a_member_s_preset_overrides_the_shared_recipe_but_not_its_own_keys() -> None:
    settings(
        "members = ['tiny_cnn', 'twin']\n[recipe]\nepochs = 4\nbatch_size = 8\n"
        "[member.twin]\nnetwork = 'tiny_cnn'\n"
        "[member.twin.recipe]\npreset = 'best'\nlabel_smoothing = 0.2\n"
        "[member.twin.recipe.regularize]\nema_decay = 0.9\n"
    )
    experiment = load_experiment()
    first, twin = (m.recipe for m in experiment.resolved_members())
    assert (first.epochs, first.regularize.tta) == (4, "none")
    assert (twin.epochs, twin.batch_size, twin.label_smoothing) == (30, 8, 0.2)
    assert (twin.regularize.ema_decay, twin.regularize.tta) == (0.9, "dihedral")
    written = config_of(experiment)["member"]["twin"]["recipe"]
    assert (written["epochs"], "preset" in written) == (30, False)


def test_an_invalid_flag_is_not_reported_for_the_file() -> None:
    text = "[recipe]\npreset = 'fast'\n[member.tiny_cnn.recipe]\npreset = 'best'\n"
    assert "(in 'ensemble-kit.toml')" not in refused(text, {"data": {"folds": 1}})


def test_a_flag_can_choose_one_of_the_file_s_members() -> None:
    settings("members = ['tiny_cnn', 'twin']\n[member.twin]\nnetwork = 'tiny_cnn'\nseed = 1\n")
    assert [m.name for m in load_experiment({"members": ("tiny_cnn",)}).resolved_members()] == [
        "tiny_cnn"
    ]


TABLES = (
    "members = ['a', 'tiny_resnet']\npretrained = true\nimage_size = 32\n"
    "[data]\npath = 'x'\nstain_norm = 'reinhard'\n"
    "[recipe]\nepochs = 2\n"
    "[member.a]\nnetwork = 'tiny_cnn'\nimage_size = 24\npretrained = true\n"
    "stain_norm = 'none'\nseed = 7\nrecipe = {epochs = 3, learning_rate = 1e-3, batch_size = 4}\n"
)


def test_a_flag_wins_over_every_table_of_the_file() -> None:
    settings(TABLES)
    flags = {
        "image_size": 16, "pretrained": False, "weights": Path("w.pt"), "seed": 1,
        "data": {"stain_norm": "macenko"}, "recipe": {"epochs": 1, "learning_rate": 0.5},
    }  # fmt: skip
    a, other = load_experiment(flags).resolved_members()
    for member in (a, other):
        assert (member.image_size, member.pretrained, member.weights) == (16, False, Path("w.pt"))
        assert (member.recipe.epochs, member.recipe.learning_rate) == (1, 0.5)
        assert member.stain_norm is None, "the member uses that of the data"
    assert load_experiment(flags).data.stain_norm == "macenko"
    assert (a.seed, a.recipe.batch_size) == (7, 4), "no flag sets these"


def test_the_plan_shows_the_values_of_flags(cli: Any, slides: Path) -> None:
    settings(TABLES.replace("'x'", f"'{slides}'").replace("stain_norm = 'reinhard'\n", ""))
    code, printed = cli("train-members", "--no-pretrained", "--epochs", 1, "--image-size", 16,
                     "--learning-rate", 0.5, "--folds", 2, "--dry-run")  # fmt: skip
    assert code == 0
    rows = [
        line.split() for line in printed.splitlines() if line.startswith(("a ", "tiny_resnet "))
    ]
    assert [row[0] for row in rows] == ["a", "tiny_resnet"]
    for row, batch in zip(rows, ("4", "32"), strict=True):
        assert (row[1], row[-4:]) == ("16", ["random", "1", batch, "0.5"])


def test_a_named_recipe_among_the_flags_wins_over_the_file_and_its_presets() -> None:
    settings(
        "members = ['tiny_cnn', 'twin', 'tiny_resnet:preset=best']\n"
        "[recipe]\nepochs = 7\nbatch_size = 8\n"
        "[member.twin]\nnetwork = 'tiny_cnn'\nseed = 1\n"
        "[member.twin.recipe]\npreset = 'best'\nlearning_rate = 0.1\nweight_decay = 0.5\n"
    )
    flags = {"recipe": {"preset": "fast", "learning_rate": 0.2}}
    members = load_experiment(flags).resolved_members()
    assert [m.name for m in members] == ["tiny_cnn", "twin", "tiny_resnet"]
    for member in members:
        assert (member.recipe.epochs, member.recipe.learning_rate) == (5, 0.2)
        assert (member.recipe.batch_size, member.recipe.label_smoothing) == (8, 0.0)
    assert members[1].recipe.weight_decay == 0.5


def test_settings_after_a_member_in_a_flag_win_over_other_flags() -> None:
    settings(TABLES)
    flags = {"image_size": 16, "recipe": {"epochs": 1}}
    specs = ("tiny_cnn:size=24", "tiny_cnn:preset=best", "a:epochs=4")
    first, second, third = load_experiment({**flags, "members": specs}).resolved_members()
    assert (first.image_size, first.recipe.epochs) == (24, 1)
    assert (second.image_size, second.recipe.epochs) == (16, 30)
    assert (third.image_size, third.recipe.epochs) == (16, 4)


def test_flags_win_over_settings_after_a_member_in_the_file() -> None:
    settings(
        "members = ['tiny_cnn:size=24:seed=1', 'tiny_mobile:preset=best', 'tiny_resnet:epochs=9:name=r']\n"
    )
    first, second, third = load_experiment(
        {"image_size": 16, "recipe": {"epochs": 1}}
    ).resolved_members()
    assert [first.name, second.name, third.name] == ["tiny_cnn-s1", "tiny_mobile-best", "r"]
    for member in (first, second, third):
        assert (member.image_size, member.recipe.epochs) == (16, 1)
    assert second.recipe.label_smoothing == 0.1


def test_a_flag_that_makes_two_members_equal_is_refused() -> None:
    text = "members = ['tiny_cnn', 'tiny_cnn:size=24']\n"
    printed = refused(text, {"image_size": 16})
    assert "'tiny_cnn', 'tiny_cnn:size=24'" in printed
    assert len(load_experiment({"seed": 1}).resolved_members()) == 2


def test_the_written_config_gives_the_same_experiment() -> None:
    settings("members = ['small']\nimage_size = 16\n[recipe]\nepochs = 2\n[data]\nfolds = 3\n")
    experiment = load_experiment()
    Path("full.toml").write_text(tomli_w.dumps(config_of(experiment)))
    again = load_experiment(file=Path("full.toml"))
    assert again.resolved_members() == experiment.resolved_members()
    assert config_of(again) == config_of(experiment) == read_toml("full.toml")


# -- custom augmentations ----------------------------------------------------------------------

OWN = "[augmentation.mine]\nrotation = 15.0\nstain = 0.2\nfill = 'white'\n"
VALUES = {"rotation": 15.0, "stain": 0.2, "fill": "white"}


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("[recipe]\naugmentation = 'mine'\n", {}),
        ("[recipe]\naugmentation = 'trivial'\n", {"recipe": {"augmentation": "mine"}}),
        ("[member.tiny_cnn.recipe]\naugmentation = 'mine'\n", {}),
        ("", {"members": ("tiny_cnn:augmentation=mine",)}),
        (f"[recipe.augmentation]\n{OWN.partition(chr(10))[2]}", {}),
    ],
)
def test_a_custom_augmentation_is_part_of_the_member(text: str, flags: dict[str, Any]) -> None:
    settings(f"members = ['tiny_cnn']\n{OWN}{text}")
    member = load_experiment(flags).resolved_members()[0]
    assert preset(member.recipe.augmentation) == Augmentation(**VALUES)
    assert member.facts(16)["recipe"]["augmentation"] == VALUES
    Path("ensemble-kit.toml").unlink()
    assert Member(**member.model_dump(mode="json")) == member


def test_a_changed_custom_augmentation_changes_the_digest() -> None:
    digests = set()
    for text in (OWN, OWN.replace("15.0", "16.0"), f"{OWN}hue = 0.0\n"):
        settings(f"members = ['tiny_cnn']\n[recipe]\naugmentation = 'mine'\n{text}")
        digests.add(load_experiment().resolved_members()[0].digest(16))
    assert len(digests) == 2, "a key that is off does not change the digest"


def test_the_written_config_holds_custom_augmentations() -> None:
    settings(f"members = ['tiny_cnn']\n[recipe]\naugmentation = 'mine'\n{OWN}")
    experiment = load_experiment()
    Path("full.toml").write_text(tomli_w.dumps(config_of(experiment)))
    again = load_experiment(file=Path("full.toml"))
    assert again.resolved_members() == experiment.resolved_members()


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("[augmentation.mine]\nrotatoin = 3", "'augmentation.mine.rotatoin'"),
        ("[augmentation.mine]\nhue = 0.7", "'augmentation.mine.hue'"),
        ("[augmentation.light]\nhue = 0.1", "[augmentation.light]"),
        ("[recipe]\naugmentation = {hue = 0.7}", "'recipe.augmentation.hue'"),
        ("[recipe]\naugmentation = 3", "'recipe.augmentation'"),
    ],
)  # fmt: skip
def test_an_invalid_custom_augmentation_is_refused_by_its_key(text: str, got: str) -> None:
    assert got in refused(text)


def test_an_unknown_augmentation_gets_the_nearest_custom_name() -> None:
    settings(f"{OWN}[recipe]\naugmentation = 'mien'\n")
    with pytest.raises(UsageError, match="Did you mean 'mine'"):
        load_experiment().resolved_members()


# -- refused settings ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "got", "advice"),
    [
        ("sed = 1", "'sed'", "Did you mean 'seed'?"),
        ("[data]\nfold = 3", "'data.fold'", "Did you mean 'folds'?"),
        ("[recipe]\nepoch = 3", "'recipe.epoch'", "Did you mean 'epochs'?"),
        ("epochs = 3", "'epochs'", "Did you mean 'recipe.epochs'?"),
        ("members = ['tiny_cnn']\n[member.tiny_cnn]\nimage_sice = 16", "'member.tiny_cnn.image_sice'",
         "Did you mean 'image_size'?"),
        ("members = ['tiny_cnn']\n[member.tiny_cnn.recipe]\nepoch = 1",
         "'member.tiny_cnn.recipe.epoch'", "Did you mean 'epochs'?"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_itself_and_the_nearest_known_one(
    text: str, got: str, advice: str
) -> None:
    printed = refused(text)
    assert got in printed
    assert printed.endswith(advice)


def test_an_error_in_the_file_names_the_file() -> None:
    assert "(in 'ensemble-kit.toml')" in refused("[data]\nfolds = 1\n")
    assert "(in 'ensemble-kit.toml')" not in refused("seed = 1\n", {"data": {"folds": 1}})


def test_broken_toml_names_the_file_and_the_place() -> None:
    assert "'ensemble-kit.toml'" in refused("seed = [1,\n")


def test_two_equal_keys_are_refused() -> None:
    assert "line 2" in refused("seed = 1\nseed = 2\n")


def test_a_table_of_an_unrequested_member_is_refused() -> None:
    printed = refused("members = ['tiny_cnn']\n[member.tiny_cn]\nseed = 1\n")
    assert "[member.tiny_cn]" in printed
    assert "Did you mean 'tiny_cnn'?" in printed


@pytest.mark.parametrize("values", ["folds = 1", "test_size = 0", "test_size = 1.0", "split_by = 'slide'"])  # fmt: skip
def test_invalid_values_are_refused_by_their_key(values: str) -> None:
    assert f"'data.{values.split()[0]}'" in refused(f"[data]\n{values}\n")


# -- tuned values --------------------------------------------------------------------------


def tuned(values: dict[str, Any]) -> Experiment:
    experiment = load_experiment({"run": "checkpoints/t"})
    write_best(Run("checkpoints/t"), "tiny_cnn", values, {"value": 0.5})
    return experiment


def test_tuned_values_override_the_recipe() -> None:
    tuned({"learning_rate": 0.0123, "batch_size": 16})
    settings("run = 'checkpoints/t'\n[recipe]\nlearning_rate = 1.0\nepochs = 2\n")
    first, *others = load_experiment().resolved_members()
    assert (first.tuned, first.recipe.learning_rate, first.recipe.batch_size) == (True, 0.0123, 16)
    assert first.recipe.epochs == 2
    assert not any(m.tuned for m in others)
    assert {m.recipe.learning_rate for m in others} == {1.0}


@pytest.mark.parametrize("flag", [{"learning_rate": 0.2}, {"batch_size": 4}])
def test_a_flag_for_a_tuned_value_disables_tuned_values(flag: dict[str, Any]) -> None:
    tuned({"learning_rate": 0.0123, "batch_size": 16})
    first = load_experiment({"run": "checkpoints/t", "recipe": flag}).resolved_members()[0]
    assert not first.tuned
    assert first.recipe.learning_rate != 0.0123
    assert first.recipe.model_dump()[next(iter(flag))] == next(iter(flag.values()))


@pytest.mark.parametrize(
    "text",
    [
        "members = ['tiny_cnn:learning_rate=0.2:name=tiny_cnn', 'tiny_mobile']\n",
        "members = ['tiny_cnn', 'tiny_mobile']\n[member.tiny_cnn.recipe]\nlearning_rate = 0.2\n",
    ],
)
def test_a_member_s_own_value_disables_its_tuned_values(text: str) -> None:
    tuned({"learning_rate": 0.0123, "batch_size": 16})
    settings(f"run = 'checkpoints/t'\n{text}")
    first = load_experiment().resolved_members()[0]
    assert (first.tuned, first.recipe.learning_rate) == (False, 0.2)


def test_tuning_can_be_switched_off() -> None:
    tuned({"learning_rate": 0.0123, "batch_size": 16})
    settings("run = 'checkpoints/t'\nuse_tuned = false\n")
    assert not load_experiment().resolved_members()[0].tuned


def test_values_tuned_in_another_run_are_not_used() -> None:
    tuned({"learning_rate": 0.0123, "batch_size": 16})
    assert not load_experiment({"run": "checkpoints/other"}).resolved_members()[0].tuned


# -- data ----------------------------------------------------------------------------------


def test_preparing_twice_gives_the_same_split(slides: Path) -> None:
    experiment = load_experiment({"data": {"path": str(slides), "folds": 3}})
    (one, folds), (two, again) = prepare(experiment), prepare(experiment)
    assert one.digest == two.digest
    assert folds.digest == again.digest
    assert "sha256" in one.table


def test_another_seed_gives_another_split(slides: Path) -> None:
    flags = {"data": {"path": str(slides), "folds": 3}}
    first, _ = prepare(load_experiment({**flags, "seed": 0}))
    other, _ = prepare(load_experiment({**flags, "seed": 1}))
    assert first.digest != other.digest


def test_the_config_holds_all_defaults_of_the_recipe() -> None:
    config = config_of(load_experiment())
    assert set(config["recipe"]) >= {"epochs", "weight_decay", "select_on"}
    assert set(config["recipe"]) <= set(Recipe.model_fields)


# -- settings of the split that another setting overrides --------------------------------------


def splits_of(slides: Path, *, n_folds: int | None) -> str:
    """Write a table of splits of the slides: every fifth patient is test, the rest in `n_folds`."""
    lines = ["sample_id,split" + (",fold" if n_folds else "")]
    for path in sorted(p.relative_to(slides).as_posix() for p in slides.glob("*/*.png")):
        number = int(path.partition("/P")[2][:2])
        part = ",test" if number % 5 == 4 else ",train"
        fold = "" if part == ",test" or not n_folds else str(number % 5 % n_folds)
        lines.append(path + part + ("," + fold if n_folds else ""))
    Path("splits.csv").write_text("\n".join(lines))
    return "splits.csv"


def slides_data(slides: Path, **data: Any) -> dict[str, Any]:
    return {"data": {"path": str(slides), "group_pattern": r"(P\d+)_", **data}}


@pytest.mark.parametrize(
    ("flags", "got"),
    [
        ({"test_size": 0.4}, "test_size = 0.4.* splits"),
        ({"test_size": 0.2}, "test_size = 0.2.* splits"),
        ({"test_groups": ("P01",)}, "test_groups = P01.* splits"),
        ({"folds": 5}, r"folds = 5.* the fold column of splits \(2 folds\)"),
        ({"fold_seed": 1}, "fold_seed = 1.* the fold column"),
    ],
)
def test_a_setting_that_a_table_of_splits_overrides_is_refused(
    slides: Path, flags: dict[str, Any], got: str
) -> None:
    splits = splits_of(slides, n_folds=2)
    with pytest.raises(UsageError, match=got) as caught:
        prepare(load_experiment(slides_data(slides, splits=splits, **flags)))
    name = next(iter(flags))
    assert f"--{name.replace('_', '-')}, or {name} under [data]" in caught.value.advice


def test_an_overridden_setting_of_the_file_is_refused(slides: Path) -> None:
    splits = splits_of(slides, n_folds=None)
    settings("[data]\ntest_size = 0.4\n")
    with pytest.raises(UsageError, match=r"test_size = 0\.4.* splits"):
        prepare(load_experiment(slides_data(slides, splits=splits)))
    with pytest.raises(UsageError, match=r"test_size = 0\.4.* test_groups"):
        prepare(load_experiment(slides_data(slides, test_groups=("P01", "P11"))))


def test_a_test_size_is_refused_if_the_data_have_a_test_part(
    paint: Callable[..., Path],
) -> None:
    for part in ("train", "test"):
        paint(Path("data") / part, n_patients=2, n_images=2)
    own = {"path": "data", "folds": 2}
    assert len(prepare(load_experiment({"data": own}))[0].part("test")) == 8
    with pytest.raises(UsageError, match=r"test_size = 0\.4.*--test-part drawn"):
        prepare(load_experiment({"data": own | {"test_size": 0.4}}))


def painted_parts(paint: Callable[..., Path], *parts: str) -> dict[str, Any]:
    for part in parts:
        paint(Path("data") / part, n_patients=3, n_images=2)
    return {"path": "data", "folds": 2}


def test_validation_images_can_be_the_test_part(
    paint: Callable[..., Path],
) -> None:
    own = painted_parts(paint, "train", "val")
    drawn, _ = prepare(load_experiment({"data": own}))
    assert any("12 validation images" in n and "--test-part valid" in n for n in drawn.notes)
    chosen, _ = prepare(load_experiment({"data": own | {"test_part": "valid"}}))
    assert set(chosen.part("test").table["part"]) == {"val"}
    assert len(chosen.part("test")) == 12
    assert not any("validation images" in note for note in chosen.notes)
    with pytest.raises(UsageError, match="test_size = 0"):
        prepare(load_experiment({"data": own | {"test_part": "valid", "test_size": 0.3}}))


def test_test_part_valid_needs_validation_images_and_no_test_part(
    paint: Callable[..., Path],
) -> None:
    own = painted_parts(paint, "train", "test") | {"test_part": "valid"}
    with pytest.raises(DataError, match="'test', 'train'"):
        prepare(load_experiment({"data": own}))
    paint(Path("data/val"), n_patients=1, n_images=1)
    with pytest.raises(UsageError, match="test part of 12 images"):
        prepare(load_experiment({"data": own}))


def test_patients_on_both_sides_of_a_split_are_refused_with_alternatives(
    paint: Callable[..., Path],
) -> None:
    # Both parts have the patients P00 to P05, with different images.
    own = painted_parts(paint, "train", "test") | {"group_pattern": r"(P\d+)_"}
    for file in Path("data/test").glob("*/*.png"):
        file.write_bytes(file.read_bytes() + b"differs")
    with pytest.raises(DataError, match="P00"):
        prepare(load_experiment({"data": own}))
    drawn, _ = prepare(load_experiment({"data": own | {"test_part": "drawn"}}))
    assert drawn.split_by == "group"
    assert not set(drawn.part("train").groups) & set(drawn.part("test").groups)
    by_image, folds = prepare(load_experiment({"data": own | {"split_by": "image"}}))
    assert (by_image.split_by, folds.split_by) == ("image", "image")
    assert set(by_image.part("test").table["part"]) == {"test"}
    chosen, _ = prepare(load_experiment({"data": own | {"test_groups": ("P01", "P04")}}))
    assert set(chosen.part("test").groups) == {"P01", "P04"}


def test_defaults_and_the_given_number_of_folds_are_accepted(
    slides: Path,
) -> None:
    splits = splits_of(slides, n_folds=2)
    for requested in ({}, {"folds": 2}):
        _, folds = prepare(load_experiment(slides_data(slides, splits=splits, **requested)))
        assert folds.n_splits == 2
    splits = splits_of(slides, n_folds=None)
    _, folds = prepare(load_experiment(slides_data(slides, splits=splits, folds=4)))
    assert folds.n_splits == 4


def test_defaults_in_the_config_of_an_older_run_are_accepted(slides: Path) -> None:
    splits = splits_of(slides, n_folds=2)
    old = {"test_size": 0.2, "folds": 5, "test_groups": [], **slides_data(slides)["data"]}
    Path("old.toml").write_text(tomli_w.dumps({"data": {**old, "splits": splits}}))
    _, folds = prepare(load_experiment(file=Path("old.toml")))
    assert folds.n_splits == 2
    with pytest.raises(UsageError, match="folds = 5"):
        prepare(load_experiment({"data": {"folds": 5}}, file=Path("old.toml")))


def test_the_folds_of_embedded_data_are_a_default() -> None:
    assert not load_experiment().data.model_fields_set
    assert load_experiment({"data": {"folds": 3}}).data.model_fields_set == {"folds"}


def test_the_config_leaves_out_ignored_settings_of_the_split(slides: Path) -> None:
    splits = splits_of(slides, n_folds=2)
    given = config_of(load_experiment(slides_data(slides, splits=splits)))["data"]
    assert not given.keys() & {"folds", "test_size", "test_groups", "fold_seed"}
    named = config_of(load_experiment(slides_data(slides, test_groups=("P01",))))["data"]
    assert ("test_size" in named, named["test_groups"], named["folds"]) == (False, ["P01"], 5)
    drawn = config_of(load_experiment(slides_data(slides)))["data"]
    assert (drawn["test_size"], drawn["folds"]) == (0.2, 5)


def test_the_config_holds_how_both_stains_are_joined() -> None:
    def joined(**data: Any) -> str | None:
        return config_of(load_experiment({"data": {"path": "x", **data}}))["data"].get("join")

    assert joined(stain="both") == "stack"
    assert joined(stain="both", join="side") == "side"
    assert joined(stain="he") is joined() is None


# -- the settings of an existing run ---------------------------------------------------------


@pytest.fixture
def own_run(slides: Path, tmp_path: Path) -> Run:
    experiment = load_experiment(
        slides_data(slides) | {"run": str(tmp_path / "own"), "members": ["cnn4"]}
    )
    Run(experiment.run_path).begin(*prepare(experiment), config_of(experiment))
    return Run(experiment.run_path)


def test_a_run_uses_its_own_settings_if_no_data_are_given(own_run: Run, slides: Path) -> None:
    found = load_experiment({"run": str(own_run.path)})
    assert Path(found.data.path) == slides
    assert [m.name for m in found.resolved_members()] == ["cnn4"]
    assert found.run_path == own_run.path
    own_run.begin(*prepare(found), config_of(found))  # the same data and folds


def test_options_settings_files_and_data_win_over_the_settings_of_the_run(own_run: Run) -> None:
    run = str(own_run.path)
    assert load_experiment({"run": run, "recipe": {"epochs": 77}}).recipe.epochs == 77
    assert load_experiment({"run": run, "data": {"path": "digits"}}).data.path == "digits"
    settings('image_size = 48\n[data]\npath = "digits"\n')
    assert load_experiment({"run": run}).image_size == 48


def test_a_named_recipe_replaces_that_of_the_run(own_run: Run, slides: Path) -> None:
    best = load_experiment(slides_data(slides) | {"recipe": {"preset": "best"}})
    own_run.keep_config(config_of(best))
    requested = {"run": str(own_run.path), "recipe": {"preset": "fast"}}
    fast = load_experiment(slides_data(slides) | {"recipe": {"preset": "fast"}}).recipe
    assert load_experiment(requested).recipe == fast != best.recipe
    assert load_experiment({"run": str(own_run.path)}).recipe == best.recipe


def test_embedded_data_do_not_replace_the_data_of_a_run(trained: Any, tmp_path: Path) -> None:
    assert load_experiment({"run": str(tmp_path / "new")}).data.path in EMBEDDED
    with pytest.raises(DataError) as caught:
        prepare(load_experiment({"run": str(trained.run.path)}))
    assert "--data" in str(caught.value)
