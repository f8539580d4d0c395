"""Row 43: a member that lacks a fold is an error, or stood in for and stamped; never zeros."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ensemble_kit.arrays import softmax
from ensemble_kit.combiners.averaging import MeanProba
from ensemble_kit.errors import DataError, EnsembleKitError, UsageError
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.quorum import with_quorum
from ensemble_kit.evaluation.stack import stack_run
from ensemble_kit.testing import toy_predictions, toy_run


def with_a_gap():
    table = toy_predictions(120, 4, 3, n_groups=12)
    logits = table.logits.copy()
    logits[table.fold == 2, 1] = np.nan
    return dataclasses.replace(table, logits=logits)


def test_row_43_the_mean_over_a_quorum_is_the_mean_of_the_members_present() -> None:
    table = with_a_gap()
    full = with_quorum(table, 3)
    got = MeanProba().fit(full.logits, full.labels).predict_proba(full.logits)
    np.testing.assert_allclose(got, np.nanmean(softmax(table.logits), axis=1), atol=1e-6)
    assert "Quorum of 3: 30 of 480" in full.notes[-1]
    assert "member1" in full.notes[-1]


def test_a_quorum_that_is_not_met_names_the_samples() -> None:
    with pytest.raises(DataError, match=r"30 of 120 have fewer: oof-"):
        with_quorum(with_a_gap(), 4)
    with pytest.raises(UsageError, match=r"1 .. 4"):
        with_quorum(with_a_gap(), 5)


def test_a_whole_table_is_left_as_it_is() -> None:
    table = toy_predictions()
    assert with_quorum(table, 2) is table


def test_row_43_stack_refuses_an_unfinished_member_unless_a_quorum_is_declared(tmp_path) -> None:
    run = toy_run(tmp_path / "run")
    stored = run.store.read("member2")
    folds, train = run.folds(), run.manifest().part("train")
    oof = stored.oof.copy()
    oof[folds.of(train) == 1] = np.nan
    about = stored.about | {"folds_done": [0, 2, 3]}
    test = {k: z for k, z in stored.test.items() if k != 1}
    run.store.write("member2", dataclasses.replace(stored, oof=oof, test=test, about=about))
    with pytest.raises(EnsembleKitError, match="every fold of every member"):
        stack_run(run, ["mean"])
    done = stack_run(run, ["mean", "simplex"], quorum=3, protocol=Protocol(n_resamples=50))
    assert any("Quorum of 3" in note for note in done.notes)
