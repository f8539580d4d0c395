"""A member without a fold is an error, or with a quorum is left out with a caveat."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble_kit.arrays import softmax
from ensemble_kit.cli import app
from ensemble_kit.combiners import make_combiner
from ensemble_kit.errors import DataError, EnsembleKitError, IntegrityError, UsageError
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit
from ensemble_kit.evaluation.diversity.pareto import pareto_table
from ensemble_kit.evaluation.permutation_test import with_noise_members
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.method_predictions import predictions_by_fold, stored_predictions
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.predictions.quorum import complete_logits, with_quorum
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_predictions, toy_run

QUICK = Protocol(n_resamples=50)
NAN = [np.nan, np.nan]


def with_a_gap():
    table = toy_predictions(120, 4, 3, n_groups=12)
    logits = table.logits.copy()
    logits[table.fold == 2, 1] = np.nan
    return dataclasses.replace(table, logits=logits)


def unfinished_run(path):
    """`member2` lacks fold 1; the test predictions of the folds' models differ a little."""
    run = toy_run(path)
    for m, name in enumerate(run.store.members()):
        one = run.store.read(name)
        moved = {k: z + 0.1 * ((k + m) % 3) * z[:, ::-1] for k, z in one.test.items()}
        run.store.write(name, dataclasses.replace(one, test=moved))
    stored = run.store.read("member2")
    oof = stored.oof.copy()
    oof[run.folds().of(run.manifest().part("train")) == 1] = np.nan
    about = stored.about | {"folds_done": [0, 2, 3]}
    test = {k: z for k, z in stored.test.items() if k != 1}
    run.store.write("member2", dataclasses.replace(stored, oof=oof, test=test, about=about))
    return run


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory):
    run = unfinished_run(tmp_path_factory.mktemp("quorum") / "run")
    methods = ["mean", "vote", "simplex", "logistic"]
    return run, stack_run(run, methods, quorum=3, protocol=QUICK)


def test_row_43_the_mean_over_a_quorum_is_the_mean_of_the_members_present() -> None:
    table = with_quorum(with_a_gap(), 3)
    mean = cross_fit(make_combiner("mean"), table).proba
    np.testing.assert_allclose(mean, np.nanmean(softmax(table.logits), axis=1), atol=1e-6)
    assert "Quorum of 3: 30 of 480 out-of-fold" in table.notes[0]
    assert "of member1" in table.notes[0]
    assert "use the other members" in table.notes[1]


@pytest.mark.parametrize(
    "name", ["mean", "vote", "mean-logits", "median", "trimmed-mean", "max", "min", "product"]
)
def test_a_rule_over_a_quorum_is_that_rule_of_the_members_present(name: str) -> None:
    table, rule = with_quorum(with_a_gap(), 3), make_combiner(name)
    got, gap = cross_fit(rule, table), table.fold == 2
    rest = table.select(["member0", "member2", "member3"]).take(gap)
    alone = rule.fit_to(rest).apply(rest)
    np.testing.assert_allclose(got.proba[gap], alone.proba, atol=1e-12)
    np.testing.assert_array_equal(got.predicted[gap], alone.predicted)
    np.testing.assert_array_equal(got.tied[gap], alone.tied)
    whole = table.take(~gap)
    np.testing.assert_allclose(got.proba[~gap], rule.fit_to(whole).apply(whole).proba)


def test_an_absent_member_has_no_vote_so_that_a_tie_is_reported() -> None:
    table = Predictions.from_arrays({"a": [[2.0, 0.0]], "b": [[0.0, 1.0]], "c": [NAN]}, [1])
    vote = cross_fit(make_combiner("vote"), with_quorum(table, 2))
    assert vote.n_ties == 1
    np.testing.assert_array_equal(vote.proba, [[0.5, 0.5]])


@pytest.mark.parametrize(("weights", "expected"), [((0.1, 0.0, 0.9), 0.9), ((0, 0, 1.0), 0.6)])
def test_weights_are_renormalised_over_the_members_present(weights, expected) -> None:
    """In the second case all weight is on the absent member: the others get equal weights."""
    table = Predictions.from_arrays(
        {"a": np.log([[0.9, 0.1]]), "b": np.log([[0.3, 0.7]]), "c": [NAN]}, [0]
    )
    table = with_quorum(table, 2)
    for name in ("simplex", "greedy"):
        fitted = make_combiner(name).fit_to(table)
        fitted.weights_ = np.array(weights)
        assert fitted.apply(table).proba[0, 0] == pytest.approx(expected, abs=1e-6)


def test_stackers_use_the_mean_of_the_present_members_for_an_absent_one() -> None:
    table = with_quorum(with_a_gap(), 3)
    full = complete_logits(table)
    np.testing.assert_allclose(
        softmax(full)[table.fold == 2, 1],
        np.nanmean(softmax(table.logits), axis=1)[table.fold == 2],
        atol=1e-6,
    )
    stacker = make_combiner("logistic").fit_to(table)
    np.testing.assert_array_equal(stacker.apply(table).proba, stacker.predict_proba(full))


def test_gaps_without_a_declared_quorum_are_refused() -> None:
    for name in ("mean", "vote", "logistic"):
        with pytest.raises(DataError, match="NaN"):
            cross_fit(make_combiner(name), with_a_gap())


def test_a_quorum_that_is_not_reached_names_the_samples() -> None:
    with pytest.raises(DataError, match=r"30 of 120 .*oof-"):
        with_quorum(with_a_gap(), 4)
    with pytest.raises(UsageError, match=r"5\b.* 4\b"):
        with_quorum(with_a_gap(), 5)


def test_a_complete_table_is_not_changed() -> None:
    table = toy_predictions()
    assert with_quorum(table, 2) is table


def test_noise_members_have_the_same_gaps() -> None:
    table = with_quorum(with_a_gap(), 3)
    noise = with_noise_members(table, np.random.default_rng(0))
    np.testing.assert_array_equal(noise.available, table.available)
    assert not np.array_equal(noise.logits[:, 1], table.logits[:, 1], equal_nan=True)


def test_sets_of_members_that_do_not_predict_every_image_are_left_out() -> None:
    costs = {f"member{m}": m + 1.0 for m in range(4)}
    table = pareto_table(with_quorum(with_a_gap(), 3), costs, protocol=QUICK)
    assert "member1" not in table["members"].tolist()
    assert any("member1" in one for one in table["members"])
    only = with_quorum(with_a_gap(), 1).select(["member1"])
    with pytest.raises(UsageError, match="0 of 1 "):
        pareto_table(only, costs, max_members=1, protocol=QUICK)


def test_row_43_stack_refuses_an_unfinished_member_unless_a_quorum_is_declared(stacked) -> None:
    run, done = stacked
    with pytest.raises(EnsembleKitError, match="lacks fold"):
        stack_run(run, ["mean"])
    assert any("Quorum of 3" in note for note in done.notes)
    assert run.predictions("test", partial=True).notes[-1].endswith("member2 of 3.")
    assert any("member2 of 3" in note for note in done.notes)


@pytest.mark.parametrize("command", [("conformal",), ("operating-point", "--at", "youden", "--class", "class2")])  # fmt: skip
def test_decisions_with_a_quorum_have_its_caveats(stacked, command: tuple[str, ...]) -> None:
    run, _ = stacked
    argv = [*command, "--run", str(run.path), "--method", "vote", "--resamples", "20"]
    printed = CliRunner().invoke(app, argv, catch_exceptions=False).output
    assert printed.count("Caveat: Quorum of 3: ") == 1
    assert "of member2" in printed
    assert printed.count("weights of simplex and greedy are renormalised") == 1
    stored = json.loads((run.ensemble_dir("vote") / "combiner.json").read_text())
    assert stored["about"]["quorum"] == 3


@pytest.mark.parametrize("method", ["mean", "simplex", "logistic"])
def test_predictions_by_fold_with_a_quorum_equal_the_stored_cross_fitted_ones(
    stacked, method
) -> None:
    run, _ = stacked
    made, new = predictions_by_fold(run, method)
    stored = stored_predictions(run, method).oof.proba
    fell_back = json.loads((run.ensemble_dir(method) / "metrics.json").read_text())[
        "fell_back_to_mean"
    ]
    if not fell_back:
        np.testing.assert_allclose(made.proba, stored, atol=1e-6)
    assert set(new) == {0, 1, 2, 3}
    mean = predictions_by_fold(run, "mean")[1][1]
    test = [run.store.read(m).test[1] for m in ("member0", "member1", "member3")]
    np.testing.assert_allclose(mean, softmax(np.stack(test)).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("member", ["member2", "member0"])
def test_predictions_with_a_quorum_are_out_of_date_if_a_member_changed(
    tmp_path, member: str
) -> None:
    """`member2` gets its absent fold, or another member changes."""
    run = unfinished_run(tmp_path / "run")
    stack_run(run, ["mean"], quorum=3, protocol=QUICK)
    stored = run.store.read(member)
    oof = np.where(np.isnan(stored.oof), 0.5, 1.01 * stored.oof)
    run.store.write(member, dataclasses.replace(stored, oof=oof))
    with pytest.raises(IntegrityError, match=member):
        stored_predictions(run, "mean")
