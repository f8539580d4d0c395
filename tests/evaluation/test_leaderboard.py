"""The leaderboard: headline, order of rows, legends, 128 columns."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble_kit.cli import app
from ensemble_kit.cli.output.text import columns
from ensemble_kit.combiners import make_combiner
from ensemble_kit.combiners.rules.voting import MajorityVote
from ensemble_kit.evaluation.caveats import replaced_note
from ensemble_kit.evaluation.compare import all_notes, chosen
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.imports.import_predictions import import_predictions
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import all_methods
from ensemble_kit.evaluation.tables import leaderboard as board
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_predictions, toy_run

QUICK = Protocol(n_resamples=100)
RULES = ("vote", "median", "max", "min", "calibrated-members")


@pytest.fixture(scope="module")
def evaluated():
    test = toy_predictions(120, kind="test")
    return evaluate_all(
        {k: make_combiner(k) for k in RULES}, toy_predictions(), test, protocol=QUICK
    )


def test_rows_are_sorted_by_the_cross_fitted_metric_with_the_oracle_last(evaluated) -> None:
    names = [row[0] for row in board.leaderboard(evaluated, QUICK)[1:]]
    assert names[-1] == "oracle"
    values = [evaluated[name].cross_fitted["balanced_accuracy"].value for name in names[:-1]]
    assert values == sorted(values, reverse=True)


def test_the_short_table_has_the_best_methods_the_best_member_and_the_mean(evaluated) -> None:
    rows, n_hidden = board.short_leaderboard(evaluated, QUICK, n_shown=2)
    assert rows[0] == ("method", "cross-fitted", "test", "against the best member")
    names = [row[0] for row in rows[1:]]
    best = [n for n in board.methods_in_order(evaluated, QUICK) if n in RULES][:2]
    assert {*names} == {*best, "best member", "mean"}
    assert n_hidden == len(RULES) - 2


def test_the_headline_counts_the_methods_and_names_the_best_and_the_baselines(evaluated) -> None:
    printed = board.headline(evaluated, QUICK)
    best = chosen(evaluated, QUICK).name
    assert printed.startswith(
        f"5 methods compared; best by cross-fitted balanced accuracy: {best} 0."
    )
    assert "Baselines: best-member 0." in printed
    assert "Corrected for the choice: 0." in printed


def test_tables_fit_128_columns(evaluated) -> None:
    for rows in (
        board.leaderboard(evaluated, QUICK),
        board.per_group_table(evaluated, QUICK, "patient"),
    ):
        assert max(map(len, columns(rows).splitlines())) <= 128
    assert max(map(len, all_methods(5))) <= len("calibrated-members")


def test_replaced_methods_share_one_caveat(evaluated) -> None:
    replaced = {
        k: dataclasses.replace(v, fell_back=True, notes=(*v.notes, replaced_note(k)))
        if k in ("max", "min")
        else v
        for k, v in evaluated.items()
    }
    rows = board.leaderboard(replaced, QUICK)
    assert {"max*", "min*"} <= {row[0] for row in rows}
    notes = [note for note in all_notes(replaced) if "replaced by the mean" in note]
    assert len(notes) == 1
    assert notes[0].startswith("max, min: ")


def test_the_star_is_explained_only_where_a_row_has_one(evaluated) -> None:
    replaced = {k: dataclasses.replace(v, fell_back=k == "max") for k, v in evaluated.items()}
    starred = board.short_note(replaced, QUICK, "patient", has_star=True)
    assert "balanced accuracy" in starred.splitlines()[-1]
    assert "log loss" in starred.splitlines()[-1]
    assert "*" not in board.short_note(replaced, QUICK, "patient", has_star=False)


def test_ties_are_counted_by_method(evaluated) -> None:
    counts = evaluated["vote"].cross_fitted.n_ties, evaluated["vote"].test.n_ties
    assert min(counts) > 0
    assert f"vote {counts[0]}+{counts[1]}" in board.ties_note(evaluated)
    rules = {k: v for k, v in evaluated.items() if not sum(f.n_ties for f in v.parts.values())}
    assert board.ties_note(rules) == "No ties (out-of-fold + test)."


def test_vote_and_the_oracle_have_caveats(evaluated) -> None:
    notes = " ".join(all_notes(evaluated))
    assert "`vote` outputs vote shares" in notes
    assert "upper bound" in notes


def call(run, *args: str):
    argv = ["stack", "--run", str(run.path), "--method", "vote", *args]
    return CliRunner().invoke(app, argv, catch_exceptions=False)


def test_without_resamples_there_are_no_intervals(tmp_path) -> None:
    run = toy_run(tmp_path / "toy")
    printed = call(run, "--resamples", "0").output
    assert "no intervals" in printed
    assert "[" not in printed
    assert call(run, "--resamples", "-3").exit_code == 2


def test_images_without_groups_have_one_caveat(tmp_path) -> None:
    table = toy_predictions(60, 2, 2)
    rows = [f"img{i},{'ab'[label]}" for i, label in enumerate(table.labels)]
    (tmp_path / "labels.csv").write_text("\n".join(["sample_id,label", *rows]))
    for m in range(2):
        np.save(tmp_path / f"{m}.npy", table.logits[:, m])
    files = {f"model{m}": tmp_path / f"{m}.npy" for m in range(2)}
    run = import_predictions(Run(tmp_path / "run"), tmp_path / "labels.csv", files, kind="logits")
    printed = call(run, "--resamples", "50").output
    assert "(60 images)" in printed
    assert "interval over images]" in printed
    assert printed.lower().count("no groups are known") == 1


def test_abstentions_are_shown_as_coverage_and_count_as_errors() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    logits = {m: rng.normal(size=(200, 2)) + np.eye(2)[labels] for m in "abcd"}
    oof = Predictions.from_arrays(logits, labels, fold=np.arange(200) // 40)
    evaluated = evaluate_all({"vote": MajorityVote(ties="abstain")}, oof, protocol=QUICK)
    vote = evaluated["vote"]
    predicted = vote.oof_combined.predicted
    head, *rows = board.leaderboard(evaluated, QUICK)
    shown = {row[0]: row[head.index("coverage")] for row in rows}
    share = (predicted >= 0).mean()
    assert shown == {
        "best-member": "1.000",
        "mean": "1.000",
        "vote": f"{share:.3f}",
        "oracle": "1.000",
    }
    assert vote.cross_fitted["accuracy"].value == pytest.approx((predicted == labels).mean())
    gain = next(one for one in vote.verdicts if one.against == "mean")
    test = next(one for one in vote.tests if (one.against, one.test) == ("mean", "mcnemar"))
    assert gain.effect.value == pytest.approx(test.estimate)
    assert f" {(predicted < 0).sum()} of 200 images cross-fitted" in " ".join(vote.notes)
    assert "coverage" in board.columns_note(evaluated, QUICK, "image")


def test_without_abstentions_there_is_no_coverage(evaluated) -> None:
    assert "coverage" not in board.leaderboard(evaluated, QUICK)[0]
    assert not any("abstain" in note for one in evaluated.values() for note in one.notes)
