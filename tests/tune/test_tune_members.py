"""Tuning of members: without the test part, resumable, and used by the next training."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

import ensemble_kit.tune.objective as objective_module
import ensemble_kit.tune.plan as plan_module
from ensemble_kit.arrays import log_softmax
from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.cli.output.tuning import next_training
from ensemble_kit.errors import DataError, EnvironmentFault, IntegrityError, JobsFailedError
from ensemble_kit.evaluation.from_arrays import Comparison
from ensemble_kit.files import digest_file, read_npy, write_npy
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.report.tuning import tuning_content
from ensemble_kit.run import Run
from ensemble_kit.tune.best import best_record, tuned_values
from ensemble_kit.tune.first_trials import enqueue_next, first_trials
from ensemble_kit.tune.outcome import Gain, TunedMember, TuningResult
from ensemble_kit.tune.plots import PLOTS
from ensemble_kit.tune.space import Space, dimensions
from ensemble_kit.tune.storage import open_storage, storage_path
from ensemble_kit.tune.trials import TrialResult
from ensemble_kit.tune.tune_members import tune_members
from ensemble_kit.tune.tuning import Progress

pytestmark = pytest.mark.slow

CLI = Callable[..., tuple[int, str]]
Tune = Callable[..., TuningResult]


def tiny(network: str = "tiny_cnn", **recipe: Any) -> Member:
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 3e-3, **recipe}
    return Member(network, image_size=16, pretrained=False, recipe=Recipe(**settings))


def stored_trials(folder: Path, name: str = "tiny_cnn") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=open_storage(Run(folder))).get_trials()


@pytest.fixture
def tune(trained: Any, tmp_path: Path) -> Callable[..., TuningResult]:
    def call(
        n_trials: int, *, folder: str = "run", members: Sequence[Member] = (), **options: Any
    ) -> TuningResult:
        return tune_members(
            members or [tiny()], options.pop("train", trained.manifest), trained.folds,
            Run(tmp_path / folder), n_trials=n_trials, device="cpu", precision="fp32", **options,
        )  # fmt: skip

    return call


# -- the test part is not used -------------------------------------------------------------


def test_tuning_does_not_read_test_images(
    trained: Any, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[set[str]] = []
    build = plan_module.build_tile_sets

    def spy(manifest: Any, *words: Any, **options: Any) -> Any:
        built.append(set(manifest.sample_ids.tolist()))
        return build(manifest, *words, **options)

    monkeypatch.setattr(plan_module, "build_tile_sets", spy)
    tune(2)
    test_ids = set(trained.manifest.part("test").sample_ids.tolist())
    assert built
    assert test_ids
    assert not set.union(*built) & test_ids


@pytest.mark.parametrize("objective", ["solo", "team", "kept"])
def test_test_images_labels_and_predictions_do_not_change_trials(
    trained: Any, tmp_path: Path, tune: Tune, copied_run: Callable[[str], Run], objective: str
) -> None:
    table = trained.manifest.table.copy()
    in_test = (table["split"] == "test").to_numpy()
    table.loc[in_test, "label"] = np.where(
        table["label"][in_test] == "benign", "malignant", "benign"
    )
    table.loc[in_test, "sha256"] = "0" * 64
    table.loc[in_test, "path"] = "nowhere.png"
    other = dataclasses.replace(trained.manifest, table=table)
    for folder in ("run", "other"):
        copied_run(folder)
    for index in (tmp_path / "other/predictions").glob("*/*.json"):
        record = read_checked(index, advice="")
        for path in index.parent.glob("test*.npy"):
            write_npy(path, 7.0 - read_npy(path))
            record["files"][path.name] = digest_file(path)
        write_checked(index, record)
    others = [Run(tmp_path / folder).predictions("test").logits for folder in ("run", "other")]
    assert not np.allclose(*others)
    options: dict[str, Any] = {"members": [tiny("tiny_resnet")], "objective": objective}
    if objective == "kept":
        options |= {"objective": "solo", "keep_trials": True}
    want = tune(3, **options)
    got = tune(3, **options, folder="other", train=other)
    assert [_values(t) for t in got.members[0].trials] == [_values(t) for t in want.members[0].trials]  # fmt: skip
    assert (got.picks, got.kept) == (want.picks, want.kept)


def _values(trial: Any) -> Any:
    return dataclasses.replace(trial, seconds=0.0)


@pytest.fixture
def copied_run(trained: Any, tmp_path: Path) -> Callable[[str], Run]:
    def copy(name: str) -> Run:
        shutil.copytree(trained.run.path, tmp_path / name)
        return Run(tmp_path / name)

    return copy


def test_trials_are_scored_on_held_out_patients(
    trained: Any, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    run = objective_module.Fit.run
    manifest = trained.manifest
    group = dict(zip(manifest.sample_ids.tolist(), manifest.groups, strict=True))

    def spy(self: Any, rows: Any, *words: Any) -> None:
        ids = self.tiles.sample_ids
        seen.append(
            [{group[i] for i in ids[part].tolist()} for part in (rows.train, rows.validation)]
        )
        run(self, rows, *words)

    monkeypatch.setattr(objective_module.Fit, "run", spy)
    tune(2)
    assert len(seen) >= trained.folds.n_splits
    for learning, held_out in seen:
        assert learning
        assert held_out
        assert not learning & held_out


def test_the_loss_of_a_trial_equals_that_of_a_training(
    trained: Any, tune: Tune, tmp_path: Path
) -> None:
    best = tune(4).members[0].best
    assert best is not None
    member = tiny(learning_rate=best.values["learning_rate"], batch_size=best.values["batch_size"])
    run = Run(tmp_path / "after")
    fit_members([member], trained.manifest, trained.folds, run, device="cpu", precision="fp32")
    oof = run.predictions("oof")
    losses = -log_softmax(oof.logits[:, 0].astype(np.float64))[np.arange(len(oof)), oof.labels]
    assert best.loss == pytest.approx(losses.mean(), abs=1e-9)


# -- trials --------------------------------------------------------------------------------


def test_the_first_trial_has_the_settings_of_the_member(tune: Tune) -> None:
    first = tune(1, members=[tiny(batch_size=12)]).members[0].trials[0]
    assert first.values == {"learning_rate": 3e-3, "batch_size": 12}
    assert (first.origin, first.outcome) == ("default", "whole")


def test_all_members_are_tuned_in_one_database(tune: Tune, tmp_path: Path) -> None:
    result = tune(2, members=[tiny(), tiny("tiny_mobile")])
    assert [(one.name, len(one.trials)) for one in result.members] == [
        ("tiny_cnn", 2), ("tiny_mobile", 2),
    ]  # fmt: skip
    assert result.ensemble is not None
    assert [p.name for p in (tmp_path / "run/tuned").glob("*.db")] == ["studies.db"]


def test_worse_trials_are_pruned_and_recorded_with_a_worse_loss(tune: Tune, tmp_path: Path) -> None:
    result = tune(8, members=[tiny(epochs=3, learning_rate=3e-2)]).members[0]
    assert result.n_pruned > 0
    assert result.share_of_images is not None
    assert result.share_of_images < 1
    assert result.best is not None
    assert result.best.loss is not None
    stored = {t.number: t.value for t in stored_trials(tmp_path / "run")}
    for one in result.trials:
        if one.outcome == "pruned":
            assert stored[one.number] >= result.best.loss
    whole = tune(5, members=[tiny(epochs=3, learning_rate=3e-2)], prunes=False, folder="whole")
    assert whole.members[0].n_pruned == 0
    assert whole.members[0].share_of_images == 1


def test_an_invalid_member_is_refused_before_any_trial(tune: Tune, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cnn4"):
        tune(1, members=[tiny().model_copy(update={"network": "cnn4", "image_size": 2})])
    assert not storage_path(Run(tmp_path / "run")).exists()


def test_a_lack_of_memory_is_a_constraint(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = objective_module.Fit.start

    def too_large(member: Any, *words: Any, **options: Any) -> Any:
        if member.recipe.batch_size < 16:
            raise MemoryError("fake")
        return start(member, *words, **options)

    monkeypatch.setattr(objective_module.Fit, "start", too_large)
    result = tune(7).members[0]
    small = [t for t in result.trials if t.values["batch_size"] < 16]
    assert small
    assert {t.outcome for t in small} == {"out-of-memory"}
    assert result.best is not None
    assert result.best.values["batch_size"] >= 16
    trials = stored_trials(tmp_path / "run")
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    assert {(t.constraints["memory"] > 0) for t in trials} == {True, False}


def test_a_member_without_a_finite_loss_is_named(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise JobsFailedError("The loss became nan", "it must be finite", "Lower the rate")

    monkeypatch.setattr(objective_module.Fit, "run", fail)
    with pytest.raises(JobsFailedError, match="tiny_cnn") as caught:
        tune(2)
    assert caught.value.exit_code == 5


# -- interruption --------------------------------------------------------------------------


def test_a_tuning_continues_with_more_trials(tune: Tune) -> None:
    before = tune(2)
    seen: list[Progress] = []
    after = tune(4, listener=seen.append)
    assert after.members[0].trials[:2] == before.members[0].trials
    assert [p.latest[1].number for p in seen if p.latest] == [2, 3]
    seen.clear()
    assert tune(4, listener=seen.append) == after
    assert [p for p in seen if p.latest] == []


class StoppedError(BaseException):
    """Stops a tuning inside a trial."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoppedError])
def test_an_interrupted_trial_resumes_after_its_last_epoch(
    tune: Tune,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
    error: type[BaseException],
) -> None:
    member = tiny(epochs=3)
    want = tune(2, members=[member], folder="undisturbed").members[0]
    monkeypatch.setattr(objective_module, "SAVE_SECONDS", 0.0)
    report, epochs = objective_module._Epochs.report, list[tuple[int, int]]()

    def report_and_die(self: Any, epoch: int, loss: float) -> None:
        report(self, epoch, loss)
        epochs.append((self._first, epoch))
        if len(epochs) == 5:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(objective_module._Epochs, "report", report_and_die)
        with pytest.raises(error):
            tune(2, members=[member])
    trained: list[int] = []
    run = objective_module.Fit.run

    def spy(self: Any, *words: Any) -> None:
        trained.append(self.training.epoch)
        run(self, *words)

    monkeypatch.setattr(objective_module.Fit, "run", spy)
    got = tune(2, members=[member]).members[0]
    assert trained[0] == 2, "two epochs of the second fold are stored"
    assert [t.loss for t in got.trials] == [t.loss for t in want.trials]
    trials = stored_trials(tmp_path / "run")
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert trials[1].user_attrs["continues"] == 0
    assert trials[0].params == trials[1].params
    assert not caplog.records
    assert not list((tmp_path / "run/tuned/trials").rglob("resume-*"))


def test_first_trials_are_enqueued_one_at_a_time() -> None:
    study, member = optuna.create_study(), tiny(batch_size=32)
    axes = dimensions(Space(), member, 100)
    first, _ = first_trials(member, axes)
    for _ in range(2):
        enqueue_next(study, first, axes)
    assert [trial.user_attrs["origin"] for trial in study.trials] == ["default"]


def test_an_interrupted_default_is_continued_before_the_next_trial(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    member = tiny(batch_size=32)  # the published settings with 32 images are in the space
    with monkeypatch.context() as patch:
        patch.setattr(objective_module.Fit, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(2, members=[member])
    got = tune(2, members=[member]).members[0]
    assert [trial.origin for trial in got.trials] == ["default", "1e-3 with 32"]


@pytest.mark.parametrize("origin", ["default", ""])
def test_a_trial_without_progress_is_given_up_except_the_default(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    if not origin:
        tune(1)

    def interrupted(*_: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(objective_module.Fit, "run", interrupted)
        for _ in range(7):
            with pytest.raises(StoppedError):
                tune(2)
    assert len(tune(2).members[0].trials) == 2
    trials = stored_trials(tmp_path / "run")
    requested = [t.params["learning_rate"] for t in trials if t.state == TrialState.FAIL]
    assert len(requested) == 7
    if origin:
        assert set(requested) == {3e-3}
        assert [t.params["learning_rate"] for t in trials].count(3e-3) == 8
    else:
        assert [requested.count(rate) for rate in dict.fromkeys(requested)] == [5, 2]


def test_the_time_limit_ends_a_trial_after_an_epoch(tune: Tune, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = tune(3, time_limit=0.0, listener=seen.append)
    assert result.members[0].trials == ()
    assert seen[0].seconds_left == 0
    assert len(tune(3, time_limit=60.0).members[0].trials) == 3


# -- database ------------------------------------------------------------------------------


def test_a_full_disk_is_an_environment_fault_and_the_study_continues(
    tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(1)
    path = storage_path(Run(tmp_path / "run"))

    def full(*_: Any, **__: Any) -> None:
        with sqlite3.connect(path) as other:
            other.execute("pragma max_page_count = 1")
            other.execute("create table filler as select zeroblob(10000000)")

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "set_constraint", full)
        with pytest.raises(EnvironmentFault, match=r"studies\.db"):
            tune(2)
    assert len(tune(2).members[0].trials) == 2


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 4096])  # fmt: skip
def test_a_damaged_database_is_refused_by_its_path(
    tune: Tune, tmp_path: Path, content: bytes
) -> None:
    path = storage_path(Run(tmp_path / "run"))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"studies\.db"):
        tune(1)
    assert path.read_bytes() == content


def test_a_damaged_fold_of_a_trial_is_trained_again(tune: Tune, tmp_path: Path) -> None:
    want = tune(1).members[0].gain
    array = next((tmp_path / "run/tuned/trials").rglob("fold-0.npy"))
    array.write_bytes(array.read_bytes()[:-4])
    assert want is not None
    assert tune(1).members[0].gain is None, "a damaged file gives no gain"
    assert tune(2).members[0].trials


@pytest.mark.parametrize("change", [{"epochs": 2}, {"label_smoothing": 0.1}])
def test_a_study_of_another_recipe_is_refused_with_the_changed_key(
    tune: Tune, change: dict[str, Any]
) -> None:
    tune(1)
    with pytest.raises(DataError, match=f"recipe.{next(iter(change))}"):
        tune(2, members=[tiny(**change)])


def test_a_study_of_other_data_is_refused(trained: Any, tune: Tune) -> None:
    tune(1)
    fewer = trained.manifest.take(np.arange(8, len(trained.manifest)))
    with pytest.raises(DataError, match="train: "):
        tune(2, train=fewer)


# -- results -------------------------------------------------------------------------------


def test_the_best_values_are_stored_with_their_trial(
    trained: Any, tune: Tune, tmp_path: Path
) -> None:
    result = tune(5).members[0]
    assert result.best is not None
    assert result.best.loss == min(t.loss for t in result.trials if t.loss is not None)
    run = Run(tmp_path / "run")
    record = best_record(run, "tiny_cnn")
    assert record is not None
    assert record["value"] == result.best.loss
    assert record["train"] == trained.manifest.part("train").digest
    is_default = result.best.origin == "default"
    assert tuned_values(run, "tiny_cnn") == ({} if is_default else result.best.values)
    assert tuned_values(run, "tiny_resnet") == {}


def test_no_values_are_stored_if_the_default_is_the_best(tune: Tune, tmp_path: Path) -> None:
    tune(1)
    run = Run(tmp_path / "run")
    assert tuned_values(run, "tiny_cnn") == {}
    record = best_record(run, "tiny_cnn")
    assert record is not None
    assert record["value"] == record["default"]


def test_the_next_training_uses_the_tuned_values(cli: CLI, slides: Path) -> None:
    common = ("--data", slides, "--members", "tiny_cnn", "--image-size", 16, "--epochs", 1, "--folds", 2,
              "--no-pretrained", "--device", "cpu", "--run", "run")  # fmt: skip
    assert cli("train-members", *common, "--slots", 1)[0] == 0
    code, printed = cli("tune", *common, "--trials", 6, "--learning-rate", 1e-5, "--batch-size", 8)
    assert code == 0
    assert printed.count("Caveat: The best values were chosen on these folds") == 1
    (following,) = [line for line in printed.splitlines() if "ensemble-kit train-members" in line]
    assert "--learning-rate" not in following, "an option would replace the tuned value"
    assert "--batch-size" not in following
    values = tuned_values(Run("run"), "tiny_cnn")
    assert {"learning_rate", "batch_size"} <= values.keys()
    code, printed = cli("train-members", *common, "--no-tuned", "--slots", 1)
    assert code == 0
    assert "(tuned)" not in printed
    assert "2 of 2 jobs are already finished" in printed
    code, printed = cli("train-members", *common, "--slots", 1)
    assert code == 0
    assert "(tuned)" in printed
    assert "Its old folds are now in run/replaced/tiny_cnn-1" in printed
    recipe = json.loads(Path("run/members/tiny_cnn/fold-0/recipe.json").read_text())
    assert {k: recipe[k] for k in ("learning_rate", "batch_size")} == {
        k: values[k] for k in ("learning_rate", "batch_size")
    }
    code, printed = cli("stack", "--run", "run", "--method", "vote", "--resamples", 20)
    assert "Caveat: tiny_cnn: its recipe was tuned on these folds" in printed


def found(name: str, verdict: str, origin: str = "") -> TunedMember:
    best = TrialResult(1, {"learning_rate": 0.1}, 0.5, "whole", origin, 10, 1.0)
    gain = Gain(name, 0.6, 0.5, Comparison(0.1, 0.0, 0.2, None, verdict, 9, ""))
    return TunedMember(name, (best,), best, None, gain, 1.0)


@pytest.mark.parametrize(
    ("members", "keeps_default", "retrained"),
    [
        ([found("a", "better")], False, "a"),
        ([found("a", "not shown")], True, "a"),
        ([found("a", "better"), found("b", "not shown")], True, "a"),
        ([found("b", "not shown")], True, None),
        ([found("a", "not shown", "default")], False, None),
    ],
)
def test_no_tuned_is_recommended_if_a_gain_is_not_shown(
    members: list[TunedMember], keeps_default: bool, retrained: str | None
) -> None:
    printed = list(next_training(TuningResult(tuple(members), None), ["a"], ["--run", "r"]))
    assert any("train-members --run r --no-tuned" in line for line in printed) is keeps_default
    assert any("replaced/" in line and f"folds of {retrained} " in line for line in printed) is (
        retrained is not None
    )


def test_status_best_and_report_read_the_stored_studies(cli: CLI, slides: Path) -> None:
    words = ("--data", slides, "--members", "tiny_cnn,tiny_mobile", "--image-size", 16, "--epochs", 1,
             "--folds", 2, "--no-pretrained", "--device", "cpu", "--run", "run")  # fmt: skip
    for action in ("status", "best", "report"):
        code, printed = cli("tune", action, "--run", "run")
        assert (code, "'run' has no tuned member" in printed) == (3, True), printed
    assert cli("tune", *words, "--trials", 5, "--member", "tiny_cnn")[0] == 0
    code, printed = cli("tune", "status", "--run", "run", "--json")
    assert code == 0
    trials = json.loads(printed)
    assert trials.keys() == {"tiny_cnn"}
    assert len(trials["tiny_cnn"]) == 5
    code, printed = cli("tune", "best", "--run", "run", "--json")
    best = json.loads(printed)["tiny_cnn"]
    assert best["value"] == min(t["loss"] for t in trials["tiny_cnn"] if t["loss"] is not None)
    code, printed = cli("tune", "report", "--run", "run")
    assert code == 0
    assert [Path(line).read_bytes()[:4] for line in printed.split()] == [b"\x89PNG"] * 5
    page = tuning_content(Run("run"))
    assert [row[0] for row in page.rows] == ["member", "tiny_cnn"]
    assert {name for name, _ in page.plots["tiny_cnn"]} == PLOTS.keys()
    code, printed = cli("tune", *words, "--trials", 5, "--member", "tiny_cmn")
    assert (code, "Did you mean 'tiny_cnn'?" in printed) == (2, True)
