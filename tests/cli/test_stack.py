"""`ensemble-kit stack` on a stored run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ensemble_kit.cli import app
from ensemble_kit.evaluation.runs.stored_ensembles import read_ensemble_predictions
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.testing import toy_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    return toy_run(tmp_path_factory.mktemp("runs") / "toy")


def call(*args: str):
    return CliRunner().invoke(app, ["stack", *args], catch_exceptions=False)


def test_the_output_fits_one_screen_with_the_result_first(run) -> None:
    printed = call(
        "--run", str(run.path), "--method", "all", "--resamples", "50"
    ).output.splitlines()
    stored = json.loads(
        call("--run", str(run.path), "--method", "all", "--resamples", "50", "--json").output
    )
    assert printed[: len(stored["result"])] == stored["result"]
    assert len(printed) <= 26
    assert max(map(len, printed[len(stored["result"]) + 1 :][:14])) <= 100
    assert sum(line.startswith("Caveat: ") for line in printed) <= 3
    assert len([*dict.fromkeys(printed)]) >= len(printed) - printed.count("") + 1, (
        "no line is repeated"
    )


def test_verbose_shows_three_parts_baselines_oracle_and_ties(run) -> None:
    printed = call(
        "--run", str(run.path), "--method", "vote", "--resamples", "50", "--verbose"
    ).output
    for word in ("in-sample", "cross-fitted", "test", "best-member", "mean", "oracle", "ties"):
        assert word in printed


def test_scores_csv_holds_every_value_of_metrics_json(run) -> None:
    call("--run", str(run.path), "--method", "vote,mlp", "--resamples", "50")
    scores = pd.read_csv(run.path / "ensembles" / "scores.csv", keep_default_na=False)
    assert {"vote", "mlp", "mean", "best-member", "oracle"} <= set(scores["method"])
    assert set(scores["method"]) == {
        p.parent.name for p in run.path.glob("ensembles/*/metrics.json")
    }
    stored = json.loads((run.ensemble_dir("mlp") / "metrics.json").read_text())["test"]
    some = scores[(scores["method"] == "mlp") & (scores["part"] == "test")]
    whole = some[(some["unit"] == "image") & (some["class"] == "")].set_index("metric")
    assert float(whole.loc["auroc", "low"]) == stored["auroc"]["low"]
    rate = some[some["unit"] == "patient"].set_index("metric").loc["recognition_rate", "value"]
    assert float(rate) == stored["per_group"]["recognition_rate"]["value"]
    of_class = some[some["class"] == "class1"].set_index("metric").loc["sensitivity", "value"]
    assert float(of_class) == stored["per_class"]["class1"]["sensitivity"]["value"]


def test_vote_and_mean_equal_a_recomputation_from_the_files(run) -> None:
    call("--run", str(run.path), "--method", "vote", "--method", "mean", "--resamples", "50")
    stored = {m: np.load(run.path / f"predictions/{m}/oof.npy") for m in run.store.members()}
    logits = np.stack(list(stored.values()), axis=1).astype(np.float64)
    proba = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    mean = read_ensemble_predictions(run.ensemble_dir("mean")).query("split == 'oof'")
    vote = read_ensemble_predictions(run.ensemble_dir("vote")).query("split == 'oof'")
    np.testing.assert_allclose(mean.filter(like="p_class"), proba.mean(axis=1), atol=1e-6)
    shares = np.stack([(logits.argmax(axis=2) == c).mean(axis=1) for c in range(3)], axis=1)
    np.testing.assert_allclose(vote.filter(like="p_class"), shares, atol=1e-6)


def test_methods_are_given_in_a_list_or_one_by_one(run) -> None:
    flags = ("--run", str(run.path), "--resamples", "50")
    one_by_one = call(*flags, "--method", "vote", "--method", "median").output
    assert call(*flags, "--method", "vote, median").output == one_by_one
    printed = call(*flags, "--method", ",").output
    assert printed == call(*flags).output, "none named: the default ones"


def test_all_methods_of_one_member_are_the_mean() -> None:
    from ensemble_kit.evaluation.runs.stack_run import all_methods

    assert all_methods(1) == ["mean"]
    assert len(all_methods(2)) > 10


def test_all_runs_every_method_and_prints_json(run) -> None:
    from ensemble_kit.evaluation.runs.stack_run import all_methods

    expected = {*all_methods(len(run.members())), "best-member", "oracle"}
    printed = json.loads(
        call("--run", str(run.path), "--method", "all", "--resamples", "50", "--json").output
    )
    assert set(printed["methods"]) == expected
    assert printed["verdict"]
    assert set(printed["methods"]["mlp"]["test"]["auroc"]) == {"value", "low", "high"}
    for name in expected:
        assert (run.ensemble_dir(name) / "metrics.json").is_file()


def test_an_unknown_method_exits_2_with_advice(run) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from ensemble_kit.cli import main; main()", "stack", "--run", str(run.path), "--method", "voet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "Did you mean 'vote'?" in ran.stderr


def test_stack_vote_does_not_load_torch_or_scikit_learn(run) -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom ensemble_kit.cli import app\n"
        f"r = CliRunner().invoke(app, ['stack', '--run', {str(run.path)!r}, '--method', 'vote'], catch_exceptions=False)\n"
        "assert r.exit_code == 0, r.output\n"
        "assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_without_a_run_exits_3(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from ensemble_kit.cli import main; main()", "stack", "--run", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 3
    assert "run.json" in ran.stderr


def test_each_class_is_shown_against_the_rest_in_124_columns(run) -> None:
    printed = call("--run", str(run.path), "--method", "vote", "--resamples", "50", "--verbose")
    for title, part in (("vote, cross-fitted:", "cross_fitted"), ("vote, test:", "test")):
        table = printed.output.partition(f"\n{title}\n")[2].splitlines()[:4]
        stored = json.loads((run.ensemble_dir("vote") / "metrics.json").read_text())
        assert table[0].split()[:3] == ["class", "images", "sensitivity"]
        for line, (name, metrics) in zip(table[1:], stored[part]["per_class"].items(), strict=True):
            assert line.split()[:2] == [name, str(metrics["n"])]
            assert f" {Interval(**metrics['sensitivity'])!s} " in line
            assert f" {Interval(metrics['f1']['value'])!s} " in line
        assert max(map(len, table)) <= 124
    plain = call("--run", str(run.path), "--method", "vote", "--resamples", "50").output
    assert "vote, test:" not in plain


def test_the_optimism_of_the_best_ensemble_is_reported(run) -> None:
    printed = call(
        "--run",
        str(run.path),
        "--method",
        "boosting",
        "--set",
        "fallback=false",
        "--resamples",
        "0",
        "--verbose",
    )
    stored = json.loads((run.ensemble_dir("boosting") / "metrics.json").read_text())["differences"]
    inside = stored["in_sample_minus_cross_fitted"]["balanced_accuracy"]
    assert inside > 0
    assert f"in-sample - cross-fitted {inside:+.3f}" in printed.output
