"""Jobs that leave out two folds: their rows, their files, and nested predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.files import digest_file, write_json
from ensemble_kit.folds import make_folds
from ensemble_kit.folds.fold_key import pairs_of, read_left_out
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import Event, JobFinished, JobStarted
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.job_spec import open_job
from ensemble_kit.members.jobs.nested_folds import seconds_of_pairs
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.jobs.status import run_status
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

pytestmark = pytest.mark.slow

MakeJob = Callable[..., Job]


# -- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_splits", [3, 4, 5, 12])
def test_the_number_of_pairs_is_k_times_k_minus_1_over_2(n_splits: int) -> None:
    pairs = pairs_of(n_splits)
    assert len(set(pairs)) == n_splits * (n_splits - 1) // 2
    assert all(read_left_out(pair, n_splits) == pair for pair in pairs)


@pytest.mark.parametrize("word", ["3", "-1", "1-0", "1-1", "0-3", "0-1-2", "x", "", "0-"])
def test_an_unknown_fold_or_pair_is_refused(word: str) -> None:
    with pytest.raises(DataError, match="0 to 2"):
        read_left_out(word, 3)


# -- one job -------------------------------------------------------------------------------


@pytest.mark.parametrize("select_on", ["none", "inner"])
def test_a_pair_job_holds_out_the_rows_of_both_folds(make_job: MakeJob, select_on: str) -> None:
    job = make_job(fold="0-2", select_on=select_on)
    train = job.manifest.part("train")
    fold = dict(zip(job.tiles.rows(train.sample_ids).tolist(), job.folds.of(train), strict=True))
    parts = job.parts()
    assert {fold[i] for i in parts.fit.train.tolist()} == {1}
    assert {fold[i] for i in parts.held_out.tolist()} == {0, 2}
    assert len(parts.held_out) == sum(f != 1 for f in fold.values())
    assert len(parts.test) == 0
    if select_on == "inner":
        assert {fold[i] for i in parts.fit.validation.tolist()} == {1}


def test_a_pair_job_writes_its_record_and_has_its_own_seed(make_job: MakeJob) -> None:
    job = make_job(fold="0-2", epochs=1)
    run_job(job)
    assert job.finished()
    assert job.folder.name == "fold-0-2"
    assert np.load(job.folder / "logits-oof.npy").shape == (len(job.parts().held_out), 2)
    assert np.load(job.folder / "logits-test.npy").shape == (0, 2)
    seeds = {make_job(fold=fold).model_seed for fold in (0, 1, 2, "0-1", "0-2", "1-2")}
    assert len(seeds) == 6


@pytest.mark.parametrize("recipe", [{}, {"select_on": "inner", "patience": 2}], ids=str)
def test_a_pair_job_resumed_equals_an_uninterrupted_one_bit_for_bit(
    make_job: MakeJob, interrupt: Callable[[Job, int], None], recipe: dict[str, Any]
) -> None:
    whole = make_job("whole", fold="1-2", epochs=4, **recipe)
    torn = make_job("torn", fold="1-2", epochs=4, **recipe)
    run_job(whole)
    interrupt(torn, 2)
    seen: list[Event] = []
    run_job(torn, seen.append)
    assert [e.first_epoch for e in seen if isinstance(e, JobStarted)] == [2]
    for name in ("model.safetensors", "logits-oof.npy"):
        assert digest_file(torn.folder / name) == digest_file(whole.folder / name)


# -- a whole run ---------------------------------------------------------------------------


def tiny(**recipe: Any) -> Member:
    settings = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, **recipe}
    return Member("tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(**settings))


@pytest.fixture
def fit(trained: Any) -> Callable[..., list[Event]]:
    """Train one tiny network on the shared slides; return the events."""

    def call(run: Run, **options: Any) -> list[Event]:
        events: list[Event] = []
        options = {"members": [tiny()], "folds": trained.folds, "device": "cpu", **options}
        fit_members(train=trained.manifest, run=run, listener=events.append, **options)
        return events

    return call


def test_nested_adds_the_pairs_after_the_folds_and_skips_finished_jobs(
    fit: Callable[..., list[Event]], tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    done = [e.fold for e in fit(run) if isinstance(e, JobFinished)]
    assert done == [0, 1, 2]
    assert [job.fold for job in run_status(run)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"3 of 3 .*'tiny_cnn' lacks 0-1, 0-2, 1-2") as e:
        run.nested_predictions()
    assert "train-members --nested" in e.value.advice
    before = run.store.read("tiny_cnn")
    seconds = seconds_of_pairs(run, [tiny()], 3)
    assert seconds is not None
    assert seconds > 0
    done = [e.fold for e in fit(run, nested=True) if isinstance(e, JobFinished)]
    assert done == ["0-1", "0-2", "1-2"]
    assert seconds_of_pairs(run, [tiny()], 3) == 0.0
    after = run.store.read("tiny_cnn")
    assert np.array_equal(after.oof, before.oof)
    assert before.nested is None
    assert after.about["pairs_done"] == ["0-1", "0-2", "1-2"]
    assert not [e for e in fit(run, nested=True) if isinstance(e, JobFinished)]
    assert not [e for e in fit(run) if isinstance(e, JobFinished)]
    assert run.store.read("tiny_cnn").nested is not None, "lost by a call without --nested"
    assert Counter(job.state for job in run_status(run)) == {"done": 6}


def test_the_status_counts_waiting_failed_and_finished_pairs(
    fit: Callable[..., list[Event]], tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    fit(run, nested=True)
    (run.fold_dir("tiny_cnn", "0-2") / "fold.json").unlink()
    (run.fold_dir("tiny_cnn", "1-2") / "fold.json").unlink()
    write_json(run.fold_dir("tiny_cnn", "1-2") / "failed.json", {"reason": "lightning"})
    found = {job.fold: (job.state, job.reason) for job in run_status(run)}
    done = ("done", "")
    assert found == {0: done, 1: done, 2: done, "0-1": done, "0-2": ("waiting", ""), "1-2": ("failed", "lightning")}  # fmt: skip


def test_a_missing_pair_is_nan_and_named_in_the_error(
    fit: Callable[..., list[Event]], trained: Any, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    fit(run, nested=True)
    (run.fold_dir("tiny_cnn", "0-2") / "fold.json").unlink()
    events = fit(run, nested=False)
    assert not [e for e in events if isinstance(e, JobFinished)]
    nested = run.store.read("tiny_cnn").nested
    assert nested is not None
    fold = trained.folds.of(trained.manifest.part("train"))
    there = np.isfinite(nested).all(axis=2)
    for k in range(3):
        for j in range(3):
            pair = f"{min(j, k)}-{max(j, k)}"
            assert (there[k][fold == j] == (j != k and pair != "0-2")).all()
    with pytest.raises(DataError, match=r"1 of 3 .*'tiny_cnn' lacks 0-2"):
        run.nested_predictions()


def test_pairs_with_other_settings_are_not_used(
    fit: Callable[..., list[Event]], tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    fit(run, nested=True)
    with pytest.raises(DataError, match=r"recipe\.epochs: 2 -> 1"):
        fit(run, members=[tiny(epochs=1)], nested=True)
    for k in range(3):
        (run.fold_dir("tiny_cnn", k) / "fold.json").unlink()
    fit(run, members=[tiny(epochs=1)])
    with pytest.raises(DataError, match="3 of 3 "):
        run.nested_predictions()


def test_snapshots_have_their_own_pairs(
    fit: Callable[..., list[Event]], trained: Any, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    fit(run, members=[tiny(snapshots=2)], nested=True)
    fold = trained.folds.of(trained.manifest.part("train"))
    inner = run.nested_predictions()[2].inner
    assert inner.member_names == ("tiny_cnn", "tiny_cnn@snap1")
    held_out = np.isin(fold, (0, 2))
    for m, weights in enumerate(("", "snap1")):
        path = run.fold_dir("tiny_cnn", "0-2") / weights / "logits-oof.npy"
        want = np.load(path)[fold[held_out] == 0]
        assert np.array_equal(inner.logits[inner.fold == 0][:, m], want)


def test_the_plan_shows_the_number_of_jobs_of_the_pairs(
    cli: Callable[..., tuple[int, str]],
) -> None:
    code, printed = cli("train-members", "--nested", "--dry-run", "--members", "tiny_cnn,tiny_mobile", "--folds", 4)  # fmt: skip
    assert code == 0
    assert "12 in all" in printed
    code, printed = cli("train-members", "--nested", "--dry-run", "--members", "tiny_cnn", "--folds", 2)  # fmt: skip
    assert code == 3
    assert "2 folds" in printed


def test_shards_divide_the_pairs(fit: Callable[..., list[Event]], tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    halves = [
        [e.fold for e in fit(run, nested=True, shard=(i, 2)) if isinstance(e, JobFinished)]
        for i in (1, 2)
    ]
    assert halves == [[0, 2, "0-2"], [1, "0-1", "1-2"]]
    assert len(run.nested_predictions()) == 3


def test_a_pair_job_is_opened_by_its_name(
    fit: Callable[..., list[Event]], tmp_path: Path, cli: Callable[..., tuple[int, str]]
) -> None:
    run = Run(tmp_path / "run")
    fit(run, nested=True)
    assert open_job(run, "tiny_cnn", "0-2").fold == "0-2"
    want = digest_file(run.fold_dir("tiny_cnn", "0-2") / "logits-oof.npy")
    (run.fold_dir("tiny_cnn", "0-2") / "fold.json").unlink()
    code, printed = cli("run-job", run.path, "tiny_cnn", "0-2", "--threads", "1")
    assert (code, "fold-0-2" in printed) == (0, True)
    assert digest_file(run.fold_dir("tiny_cnn", "0-2") / "logits-oof.npy") == want
    code, printed = cli("run-job", run.path, "tiny_cnn", "0-3")
    assert code == 3
    assert "'0-3'" in printed


def test_nested_cross_validation_with_two_folds_is_refused(
    fit: Callable[..., list[Event]], trained: Any, tmp_path: Path
) -> None:
    folds = make_folds(trained.manifest, 2, seed=0)
    with pytest.raises(DataError, match="2 folds") as caught:
        fit(Run(tmp_path / "run"), folds=folds, nested=True)
    assert "--folds 3" in caught.value.advice
    assert not (tmp_path / "run").exists()


def test_nested_cross_validation_refuses_selection_on_the_held_out_fold(
    fit: Callable[..., list[Event]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"tiny_cnn .*select_on"):
        fit(Run(tmp_path / "run"), members=[tiny(select_on="held-out-fold")], nested=True)
    assert not (tmp_path / "run").exists()
