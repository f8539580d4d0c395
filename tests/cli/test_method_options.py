"""Flags of `stack` that reach the parameters of combiners."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner

from ensemble_kit.cli import app
from ensemble_kit.cli.options.methods import combiners_of, positive_class, settle_severity
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.saved import load_combiner
from ensemble_kit.errors import UsageError
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.testing import toy_run


@pytest.fixture
def stacked(tmp_path) -> Callable[..., Combiner]:
    run = toy_run(tmp_path / "toy")

    def call(method: str, *args: str) -> Combiner:
        argv = ["stack", "--run", str(run.path), "--resamples", "0", "--set", "fallback=false"]
        CliRunner().invoke(app, [*argv, "--method", method, *args], catch_exceptions=False)
        return load_combiner(run.ensemble_dir(method))

    return call


def test_greedy_selection_uses_the_given_metric(stacked) -> None:
    assert stacked("greedy").get_params()["metric"] == "log_loss"
    assert stacked("greedy", "--metric", "auroc").get_params()["metric"] == "auroc"


def test_greedy_selection_by_cost_gets_the_costs(stacked, tmp_path) -> None:
    names = ["class0", "class1", "class2"]
    rows = "\n".join(f"{n},{','.join('0' if n == m else '5' for m in names)}" for n in names)
    (tmp_path / "costs.csv").write_text(f"true,{','.join(names)}\n{rows}\n")
    fitted = stacked("greedy", "--metric", "expected_cost", "--costs", str(tmp_path / "costs.csv"))
    assert fitted.get_params()["error_costs"][0][1] == 5.0


def test_parameters_of_greedy_selection_are_set_by_name(stacked) -> None:
    params = stacked("greedy", "--set", "greedy.n_bags=3", "--set", "greedy.n_first=2").get_params()
    assert (params["n_bags"], params["n_first"]) == (3, 2)


def test_members_are_calibrated_before_a_stacker(stacked) -> None:
    inner = stacked("calibrated-members", "--set", "calibrated-members.combiner=logistic")
    assert type(inner.get_params()["combiner"]).__name__ == "LogisticStacker"


def test_a_positive_class_wins_ties(stacked) -> None:
    params = stacked("vote", "--positive", "class1").get_params()
    assert params == {"ties": "severity", "positive": 1}


def test_the_ties_option_overrides_the_positive_class(stacked) -> None:
    params = stacked("vote", "--positive", "class1", "--ties", "lowest").get_params()
    assert params == {"ties": "lowest", "positive": 1}


@pytest.mark.parametrize("args", [("--ties", "severity"), ("--set", "vote.ties=severity")])
def test_ties_by_severity_need_a_known_most_severe_class(stacked, args) -> None:
    with pytest.raises(UsageError, match="--positive") as refused:
        stacked("vote", *args)
    assert "'class2'" in str(refused.value)
    assert stacked("vote", *args, "--positive", "class0").get_params()["positive"] == 0


@pytest.mark.parametrize(
    ("known", "want"), [({"positive": "mild"}, 0), ({"ordinal": True}, 1), ({}, None)]
)
def test_the_most_severe_class_is_read_from_the_data(known, want) -> None:
    rows = [("a", "a.png", "mild", "p1"), ("b", "b.png", "normal", "p2")]
    manifest = Manifest.from_records(rows, **known)
    made = combiners_of(["vote", "mean"], [], seed=0, ties="severity")
    if want is None:
        with pytest.raises(UsageError, match="--positive"):
            settle_severity(made, manifest)
        return
    assert settle_severity(made, manifest) == manifest.class_names[want]
    assert made["vote"].get_params()["positive"] == want


def test_ties_by_mean_probability_need_no_severe_class() -> None:
    rows = [("a", "a.png", "mild", "p1"), ("b", "b.png", "normal", "p2")]
    made = combiners_of(["vote"], [], seed=0)
    assert settle_severity(made, Manifest.from_records(rows)) == ""


@pytest.mark.parametrize(
    ("setting", "printed"),
    [
        ("greedy.n_bag=3", "Did you mean 'n_bags'"),
        ("greed.n_bags=3", "Did you mean 'greedy'"),
        ("greedy.n_bags", "METHOD.NAME=VALUE"),
        ("greedy.n_bags=x", "'greedy.n_bags=x'"),
        ("greedy.n_picks=0", "'greedy.n_picks=0'"),
        ("greedy.n_picks=true", "'greedy.n_picks=true'"),
        ("greedy.max_members=x", "'greedy.max_members=x'"),
        ("greedy.error_costs=1", "--costs"),
        ("logistic.c=x", "'logistic.c=x'"),
        ("mean.x=1", "'x'"),
    ],
)
def test_an_invalid_setting_is_refused(setting: str, printed: str) -> None:
    with pytest.raises(UsageError) as caught:
        combiners_of(["greedy", "mean", "logistic"], [setting], seed=0)
    assert printed in str(caught.value)


def test_a_positive_class_is_one_of_the_classes() -> None:
    assert positive_class(None, ("a", "b")) is None
    assert positive_class("b", ("a", "b")) == 1
    with pytest.raises(UsageError, match="'c'"):
        positive_class("c", ("a", "b"))
