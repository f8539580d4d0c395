"""Every experiment of `experiments/` in its smallest size, from its folder to RESULTS.md."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ensemble_kit.cli import COMMANDS, app
from ensemble_kit.cli.commands.reproduce import call_command
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.experiment import config_of, load_experiment
from ensemble_kit.experiment_data import prepare
from ensemble_kit.inference.ensemble import load_ensemble
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.reproduce.experiment_file import FILE, Plan, read_plan
from ensemble_kit.reproduce.reproduce import Reproduced, plan_of, reproduce
from ensemble_kit.reproduce.results import gather
from ensemble_kit.reproduce.results_table import constant_rows
from ensemble_kit.reproduce.run_steps import StepEnded
from ensemble_kit.reproduce.steps import STEPS, Target
from ensemble_kit.run import Run

pytestmark = pytest.mark.slow

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
NAMES = sorted(path.parent.name for path in EXPERIMENTS.glob(f"*/{FILE}"))
SMALLEST: dict[str, Any] = {
    "image_size": 32,
    "data": {"folds": 2},
    "recipe": {"epochs": 1, "patience": 0, "schedule": "constant"},
}
# Fewer members, for experiments whose variants do not name members.
FEW = {
    "her2_resnet18_he_ihc": {"members": ["tiny_resnet"]},
    "breakhis_efficientnet_ensemble": {"members": ["tiny_cnn", "tiny_resnet"]},
}
SMALL_DATA = "[quick.phantom]\nn_patients = 12\nimages_per_patient = 3\nimage_size = 32\n"


def write_small(place: Path) -> Path:
    """An experiment of two variants. The second has a learning rate that is too small to learn."""
    folder = place / "small"
    folder.mkdir()
    (folder / FILE).write_text(
        'title = "Small"\nsteps = ["check", "train", "stack"]\nmembers = ["tiny_cnn"]\nmethods = ["mean"]\nimage_size = 32\n'
        "pretrained = false\n[data]\nfolds = 2\nstain = 'ihc'\n[recipe]\nepochs = 1\n"
        "[matrix.rate.usual]\n[matrix.rate.tiny.recipe]\nlearning_rate = 1e-9\n"
        '[[published]]\nvalue = ".4565"\nimages = 977\nvariant = "usual"\n[expected]\nimages = 36\n'
        f"{SMALL_DATA}",
        encoding="utf-8",
    )
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small(tmp_path)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Reproduced:
    """The small experiment after all steps. Tests must not change it."""
    return run(plan_of(write_small(tmp_path_factory.mktemp("reproduced")), quick=True))[0]


def call(words: Sequence[str], log: Path) -> None:
    """Run a command. Training runs in this process, because a worker takes seconds to start."""
    if words[0] != "train-members":
        call_command(words, log)
        return
    experiment = load_experiment(file=Path(words[words.index("--config") + 1]))
    manifest, folds = prepare(experiment)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("trained", encoding="utf-8")
    fit_members(
        experiment.resolved_members(),
        manifest,
        folds,
        Run(experiment.run_path),
        device="cpu",
        seed=experiment.seed,
        config=config_of(experiment),
        keep_features="--keep-features" in words,
    )


def run(plan: Plan, only: str | None = None) -> tuple[Reproduced, list[StepEnded]]:
    ended: list[StepEnded] = []
    return reproduce(plan, call, only=only, listener=ended.append), ended


def test_the_repository_has_five_experiments() -> None:
    assert NAMES == [
        "breakhis_efficientnet_ensemble",
        "breast_binary_cnn",
        "her2_basic_cnn",
        "her2_cnn_densenet121_xai",
        "her2_resnet18_he_ihc",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_runs_from_its_folder_to_its_results(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    text = (EXPERIMENTS / name / FILE).read_text(encoding="utf-8")
    few = re.sub(r"images_per_patient = \d+", "images_per_patient = 1", text)
    (folder / FILE).write_text(few, encoding="utf-8")
    plan = plan_of(folder, quick=True, over={**SMALLEST, **FEW.get(name, {})})
    # Only these two have variants with several members or different networks.
    chosen = plan.variants[
        : 2 if name in ("breakhis_efficientnet_ensemble", "her2_cnn_densenet121_xai") else 1
    ]
    done, _ = run(Plan(plan.name, plan.out, plan.file, chosen, plan.is_quick, plan.is_phantom))
    assert done.page is not None
    page = done.page.read_text(encoding="utf-8")
    for one in chosen:
        assert f"| {one.name} | " in page
        for step in plan.file.steps:
            assert step == "check" or (plan.runs / one.name / "logs" / f"{step}.txt").stat().st_size
        assert (plan.runs / one.name / "report" / "index.html").is_file()
        assert list((plan.runs / one.name / "tensorboard").glob("*/events*"))
    assert "Quick run" in page
    assert "Published values" not in page
    assert (plan.out / "figures" / "variants.svg").is_file()


@pytest.mark.slow
def test_the_binary_cnn_predicts_the_second_class_from_one_half(tmp_path: Path) -> None:
    folder = tmp_path / "binary"
    folder.mkdir()
    shutil.copy(EXPERIMENTS / "breast_binary_cnn" / FILE, folder / FILE)
    plan = plan_of(folder, quick=True, over=SMALLEST)
    first = dataclasses.replace(plan, variants=plan.variants[:1])
    run(first, only="train")
    run(first, only="stack")
    ensemble = load_ensemble(Run(plan.variants[0].experiment.run_path).path, device="cpu")
    data = Path(plan.variants[0].experiment.data.path)
    images = sorted(data.glob("test/*/*.png"))
    predictions = [ensemble.predict_all(one) for one in images]
    # The second output is the sigmoid, and no other threshold is stored.
    second = np.array([one.proba[0, 1] for one in predictions])
    assert [one.classes[0] for one in predictions] == [
        ensemble.class_names[int(p >= 0.5)] for p in second.tolist()
    ]
    assert ensemble.stored.decision is None


def test_finished_steps_are_skipped_and_missing_steps_are_run(small: Path) -> None:
    plan = plan_of(small, quick=True)
    _, first = run(plan)
    # Both variants have the same images, so one check is enough.
    assert [e.step for e in first if e.seconds is None] == ["check"]
    _, second = run(plan)
    assert {e.seconds for e in second} == {None}
    shutil.rmtree(plan.runs / "tiny")
    _, third = run(plan)
    again = [(e.variant, e.step) for e in third if e.seconds is not None]
    assert again == [("tiny", "train"), ("tiny", "stack")]


def test_a_single_step_is_run_alone_and_only_once(small: Path) -> None:
    plan = plan_of(small, quick=True)
    done, ended = run(plan, only="train")
    assert [(e.variant, e.step) for e in ended] == [("usual", "train"), ("tiny", "train")]
    assert all(e.is_first and e.is_last and e.seconds is not None for e in ended)
    assert done.page is None
    _, second = run(plan)
    assert {e.step for e in second if e.seconds is not None} == {"check", "stack"}


@pytest.mark.slow
def test_a_killed_command_continues_with_the_interrupted_step(small: Path) -> None:
    plan = plan_of(small, quick=True)
    run(dataclasses.replace(plan, variants=plan.variants[:1]))
    page = plan.out / "RESULTS.md"
    page.unlink()
    words = [sys.executable, "-m", "ensemble_kit", "reproduce", str(small), "--quick"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as command:
        while not (plan.runs / "tiny" / "logs" / "train.txt").is_file():
            assert command.poll() is None
            time.sleep(0.02)
        os.killpg(command.pid, signal.SIGKILL)
    assert not page.exists()
    done, ended = run(plan_of(small, quick=True))
    again = [(e.variant, e.step) for e in ended if e.seconds is not None]
    assert again == [("tiny", "train"), ("tiny", "stack")]
    assert done.page is not None


def test_the_table_compares_each_variant_with_the_first_over_patients(
    reproduced: Reproduced,
) -> None:
    done, plan = reproduced, reproduced.plan
    assert done.results is not None
    usual, tiny = done.results.rows
    assert usual.parts["cross_fitted"].against_first is None
    verdict = tiny.parts["cross_fitted"].against_first
    assert verdict is not None
    values = [row.parts["cross_fitted"].metrics["balanced_accuracy"].value for row in (usual, tiny)]
    assert verdict.effect.value == pytest.approx(values[1] - values[0])
    assert usual.group_kind == "patient"
    table = pd.read_csv(plan.out / "results.csv")
    rows = table[(table["metric"] == "balanced_accuracy") & (table["part"] == "cross_fitted")]
    np.testing.assert_allclose(rows["value"], values)


def test_a_constant_classifier_is_reported_with_its_class(reproduced: Reproduced) -> None:
    done = reproduced
    assert done.results is not None
    part = done.results.rows[1].parts["test"]
    columns = part.confusion.sum(axis=0)
    is_constant = (columns > 0).sum() == 1
    assert (part.constant != "") == is_constant
    if is_constant:
        assert part.constant == done.results.class_names[int(columns.argmax())]
        assert "tiny" in constant_rows(done.results)


def test_a_published_value_is_compared_only_with_a_full_run_on_the_published_data(
    small: Path,
) -> None:
    quick = plan_of(small, quick=True)
    data = quick.variants[0].experiment.data.path
    done, _ = run(read_plan(small, data=data))
    assert done.page == small / "RESULTS.md"
    assert "| .4565 | 446 of 977 |  |  | 0." in done.page.read_text(encoding="utf-8")
    text = (small / FILE).read_text(encoding="utf-8").replace("images = 36", "images = 37")
    (small / FILE).write_text(text, encoding="utf-8")
    other, _ = run(read_plan(small, data=data))
    assert other.page is not None
    page = other.page.read_text(encoding="utf-8")
    assert "| .4565 | 446 of 977 |  |  | not comparable |" in page
    assert "37 images; these have 36." in page


def test_the_image_split_bias_is_a_paired_difference(small: Path) -> None:
    text = (small / FILE).read_text(encoding="utf-8")
    text = text.replace("[matrix.rate.usual]\n[matrix.rate.tiny.recipe]\nlearning_rate = 1e-9\n",
                        "[matrix.split.by-patient]\n[matrix.split.by-image.data]\nsplit_by = 'image'\ntest_part = 'drawn'\n")  # fmt: skip
    text = text.replace("stain = 'ihc'", "stain = 'ihc'\ntest_part = 'drawn'")
    (small / FILE).write_text(text, encoding="utf-8")
    done, _ = run(plan_of(small, quick=True))
    assert done.results is not None
    (bias,) = done.results.bias
    assert (bias.by_image, bias.by_group, bias.method) == ("by-image", "by-patient", "mean")
    assert None not in (bias.values[0].value, bias.values[1].value)
    assert bias.difference.value == pytest.approx(bias.values[0].value - bias.values[1].value)
    assert [row.split_by for row in done.results.rows] == ["group", "image"]


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (('"check"', '"chek"'), DataError, "chek"),
        (("epochs = 1", "epoch = 1"), DataError, "epoch"),
        (("learning_rate = 1e-9", ""), DataError, "'usual' and 'tiny'"),
        (("[quick.phantom]", "[quick]\nvariants = ['tine']\n[quick.phantom]"), DataError, "tine"),
    ],
)
def test_an_error_in_an_experiment_file_is_refused_by_name(
    small: Path, change: tuple[str, str], error: type[Exception], named: str
) -> None:
    text = (small / FILE).read_text(encoding="utf-8")
    assert change[0] in text
    (small / FILE).write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(error, match=named):
        plan_of(small, quick=True)


def test_unknown_steps_folders_and_missing_data_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trian"):
        run(plan_of(small, quick=True), only="trian")
    with pytest.raises(DataError, match=re.escape(str(tmp_path))):
        plan_of(tmp_path)
    with pytest.raises(DataError, match="--data"):
        plan_of(small)


def test_a_failed_step_is_run_again_and_earlier_steps_are_not(small: Path) -> None:
    plan = plan_of(small, quick=True)
    calls: list[str] = []

    def failing(words: Any, log: Path) -> None:
        calls.append(words[0])
        if words[0] == "stack":
            raise DataError("no", "got it", "do")
        call(words, log)

    with pytest.raises(DataError):
        reproduce(plan, failing, listener=lambda ended: None)
    assert calls == ["data", "train-members", "stack"]
    calls.clear()
    with pytest.raises(DataError):
        reproduce(plan, failing, listener=lambda ended: None)
    assert calls == ["stack"]


@pytest.mark.parametrize("step", STEPS)
def test_the_words_of_a_step_are_an_existing_command(step: str, small: Path) -> None:
    planned = plan_of(small, quick=True).variants[0]
    words = STEPS[step](Target(planned.experiment, small / FILE))
    if words[0] not in COMMANDS:
        pytest.skip(f"the command {words[0]} is not part of this version")
    command: click.Command = app
    # Some groups are also a command.
    while isinstance(command, click.Group) and not words[0].startswith("-"):
        _, found, words = command.resolve_command(click.Context(command), words)
        assert found is not None
        command = found
    words += ["--at", "youden"] if step == "operating-point" else []
    command.make_parser(click.Context(command)).parse_args(list(words))


@pytest.mark.parametrize("name", NAMES)
def test_every_step_of_an_experiment_has_a_command(name: str) -> None:
    plan = read_plan(EXPERIMENTS / name, data="somewhere")
    for step in plan.file.steps:
        target = Target(plan.variants[0].experiment, Path(FILE))
        assert STEPS[step](target)[0] in COMMANDS, step


@pytest.mark.slow
def test_the_command_prints_the_path_of_the_page(small: Path) -> None:
    text = (small / FILE).read_text(encoding="utf-8")
    text = text.replace("[quick.phantom]", "[quick]\nvariants = ['usual']\n[quick.phantom]")
    (small / FILE).write_text(text, encoding="utf-8")
    done = CliRunner().invoke(app, ["reproduce", str(small), "--quick"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "Quick run" in done.output
    assert f"Written: {(small / 'quick' / 'RESULTS.md').as_posix()}" in done.output
    assert gather(plan_of(small, quick=True)).rows[0].variant == "usual"
