"""A member's study: blind to the test part, resumable, and picked up by the next training."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

import ensemble_kit.tune.study as study_module
from ensemble_kit.arrays import softmax
from ensemble_kit.errors import DataError, EnvironmentFault, IntegrityError, JobsFailedError
from ensemble_kit.images.reading.decode import read_image
from ensemble_kit.images.stain_normalization import normalise
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run
from ensemble_kit.seeding import derive_seed
from ensemble_kit.tune.best import best_path, tuned_values
from ensemble_kit.tune.storage import study_path
from ensemble_kit.tune.study import TrialResult, TuningResult, tune_member

CLI = Callable[..., tuple[int, str]]


def tiny(**recipe: Any) -> Member:
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 3e-3, **recipe}
    return Member("tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(**settings))


@pytest.fixture
def tune(trained: Any, tmp_path: Path) -> Callable[..., TuningResult]:
    def call(n_trials: int, *, folder: str = "run", member: Member | None = None, **options: Any) -> TuningResult:  # fmt: skip
        return tune_member(
            member or tiny(), trained.manifest, Run(tmp_path / folder), n_trials=n_trials,
            device="cpu", precision="fp32", **options,
        )  # fmt: skip

    return call


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    path = study_path(Run(folder), "tiny_cnn")
    return optuna.load_study(study_name="tiny_cnn", storage=f"sqlite:///{path}").get_trials()


# -- the test part is out of reach ---------------------------------------------------------


def test_a_study_is_handed_no_test_image(
    trained: Any, tune: Callable[..., TuningResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[set[str]] = []
    build = study_module.build_tile_sets

    def spy(manifest: Any, *words: Any, **options: Any) -> Any:
        built.append(set(manifest.sample_ids.tolist()))
        return build(manifest, *words, **options)

    monkeypatch.setattr(study_module, "build_tile_sets", spy)
    tune(2)
    assert built
    test_ids = set(trained.manifest.part("test").sample_ids.tolist())
    assert test_ids
    assert not set.union(*built) & test_ids


def test_other_test_images_and_labels_change_no_trial(
    trained: Any, tmp_path: Path, tune: Callable[..., TuningResult]
) -> None:
    table = trained.manifest.table.copy()
    in_test = (table["split"] == "test").to_numpy()
    table.loc[in_test, "label"] = np.where(
        table["label"][in_test] == "benign", "malignant", "benign"
    )
    table.loc[in_test, "sha256"] = "0" * 64
    table.loc[in_test, "path"] = "nowhere.png"
    other = dataclasses.replace(trained.manifest, table=table)
    want = tune(3)
    got = tune_member(tiny(), other, Run(tmp_path / "other"), n_trials=3, device="cpu", precision="fp32")  # fmt: skip
    assert got == want


def test_trials_are_judged_on_whole_patients_that_they_do_not_train_on(
    trained: Any, tune: Callable[..., TuningResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    run = study_module.Fit.run

    def spy(self: Any, rows: Any, *words: Any) -> None:
        ids = self.tiles.sample_ids
        group = dict(
            zip(trained.manifest.sample_ids.tolist(), trained.manifest.groups, strict=True)
        )
        seen.append([{group[i] for i in ids[part].tolist()} for part in (rows.train, rows.watched)])
        run(self, rows, *words)

    monkeypatch.setattr(study_module.Fit, "run", spy)
    tune(2)
    assert len(seen) == 2
    for learning, watched in seen:
        assert learning
        assert watched
        assert not learning & watched


def test_a_study_says_what_the_rows_that_judge_it_lack(trained: Any, tmp_path: Path) -> None:
    train = trained.manifest.part("train")
    benign = train.labels == train.class_names.index("benign")
    one = train.take(~benign | (train.groups == train.groups[benign][0]))
    run = Run(tmp_path / "run")
    result = tune_member(tiny(), one, run, n_trials=1, device="cpu", precision="fp32")
    assert result.notes == ("Trials were judged on rows that hold no image of class 'benign'.",)
    assert json.loads(best_path(run, "tiny_cnn").read_text())["notes"] == list(result.notes)


def test_a_study_sees_what_its_member_sees(
    trained: Any, tune: Callable[..., TuningResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tiles] = []
    run = study_module.Fit.run

    def spy(self: Any, *words: Any) -> None:
        seen.append(self.tiles)
        run(self, *words)

    monkeypatch.setattr(study_module.Fit, "run", spy)
    tune(1, member=tiny().model_copy(update={"stain_norm": "reinhard"}))
    for tile, name in zip(seen[0].pixels[:3], seen[0].sample_ids, strict=False):
        path = trained.manifest.table.set_index("sample_id")["path"][name]
        image = read_image(trained.manifest.root, path)
        np.testing.assert_array_equal(tile, normalise(image, "reinhard"))


@pytest.mark.parametrize("tta", ["none", "dihedral"])
def test_trials_are_judged_as_the_member_predicts(
    trained: Any, tune: Callable[..., TuningResult], monkeypatch: pytest.MonkeyPatch, tta: str
) -> None:
    fits: list[Any] = []
    start = study_module.Fit.start

    def spy(*words: Any, **options: Any) -> Any:
        fits.append(start(*words, **options))
        return fits[-1]

    monkeypatch.setattr(study_module.Fit, "start", spy)
    value = tune(1, member=tiny(regularize={"eval_size": 24, "tta": tta})).trials[0].value
    fit = fits[0]
    assert (fit.tiles.image_size, fit.eval_tiles.image_size) == (16, 24)
    parted, _ = study_module.watched_slice(
        trained.manifest.part("train"), share=0.25, seed=derive_seed(0, "tune"), by="group"
    )
    watched = parted.part("test")
    logits = fit.logits(fit.eval_tiles.rows(watched.sample_ids), tta=tta)
    proba = softmax(logits.astype(np.float64))[np.arange(len(watched)), watched.labels]
    assert value == pytest.approx(-np.log(proba).mean(), rel=1e-6)
    one_pose = fit.training.history[-1]["val_log_loss"]
    assert (value == pytest.approx(one_pose, rel=1e-5)) is (tta == "none")


# -- resuming ------------------------------------------------------------------------------


def test_the_first_trial_is_the_recipe_as_it_stands(tune: Callable[..., TuningResult]) -> None:
    first = tune(1).trials[0]
    assert (first.learning_rate, first.batch_size) == (3e-3, 16)


def test_a_member_that_cannot_train_is_refused_before_any_trial(
    tmp_path: Path, tune: Callable[..., TuningResult]
) -> None:
    with pytest.raises(DataError, match="2 px are too small") as caught:
        tune(1, member=tiny().model_copy(update={"network": "cnn4", "image_size": 2}))
    assert "cnn4" in str(caught.value)
    assert not study_path(Run(tmp_path / "run"), "tiny_cnn").exists()


def test_a_study_goes_on_where_it_stopped(
    tune: Callable[..., TuningResult], tmp_path: Path
) -> None:
    before = tune(2)
    told: list[TrialResult] = []
    after = tune(4, after_trial=told.append)
    assert after.trials[:2] == before.trials
    assert [t.number for t in told] == [2, 3]
    told.clear()
    assert tune(4, after_trial=told.append) == after
    assert told == []


def test_a_study_keeps_the_batch_sizes_that_it_began_with(
    tune: Callable[..., TuningResult], tmp_path: Path
) -> None:
    tune(1, member=tiny(batch_size=8))
    assert len(tune(3, member=tiny(batch_size=12)).trials) == 3
    choices = {t.distributions["batch_size"].choices for t in trials_of(tmp_path / "run")}
    assert len(choices) == 1
    assert 8 in next(iter(choices))
    assert 12 not in next(iter(choices))


def test_the_best_trial_is_the_one_with_the_lowest_loss(tune: Callable[..., TuningResult]) -> None:
    result = tune(5)
    losses = {t.number: t.value for t in result.trials if t.value is not None}
    assert result.best == min(losses, key=lambda n: (losses[n], n))
    assert result.best_trial.value == min(losses.values())


class PulledPlugError(BaseException):
    """Stands for whatever kills a tuner inside a trial."""


def test_a_trial_that_was_cut_off_is_tried_once_more_with_the_same_values(
    tune: Callable[..., TuningResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(1)
    study = optuna.load_study(
        study_name="tiny_cnn",
        storage=f"sqlite:///{study_path(Run(tmp_path / 'run'), 'tiny_cnn')}",
    )
    # What a killed process leaves behind: a trial that has its values and is said to run.
    dead = study.ask()
    rate = dead.suggest_float("learning_rate", *study_module.RATES, log=True)
    tune(2)
    retried = trials_of(tmp_path / "run")
    assert retried[1].state == TrialState.FAIL
    assert retried[2].state == TrialState.COMPLETE
    assert retried[2].params["learning_rate"] == rate
    assert retried[2].user_attrs["retried"] is True


def test_a_trial_is_not_tried_a_third_time(
    tune: Callable[..., TuningResult], tmp_path: Path
) -> None:
    tune(1)
    storage = f"sqlite:///{study_path(Run(tmp_path / 'run'), 'tiny_cnn')}"
    study = optuna.load_study(study_name="tiny_cnn", storage=storage)
    dead = study.ask()
    rate = dead.suggest_float("learning_rate", *study_module.RATES, log=True)
    dead.set_user_attr("retried", True)
    tune(2)
    assert [t.params.get("learning_rate") for t in trials_of(tmp_path / "run")].count(rate) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, PulledPlugError])
def test_the_recipe_as_it_stands_is_tried_to_its_end_however_often_it_is_cut_off(
    tune: Callable[..., TuningResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    def cut_off(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(study_module.Fit, "run", cut_off)
        for _ in range(3):
            with pytest.raises(error):
                tune(2)
    assert not caplog.records
    result = tune(1)
    assert [t.learning_rate for t in result.trials if t.state == "complete"] == [3e-3]
    (recipe,) = [t for t in trials_of(tmp_path / "run") if t.state == TrialState.COMPLETE]
    assert recipe.params == {"learning_rate": 3e-3, "batch_size": 16}
    assert tune(1) == result


def test_the_trial_that_just_ended_is_told_of_while_others_wait(
    tune: Callable[..., TuningResult], tmp_path: Path
) -> None:
    tune(1)
    storage = f"sqlite:///{study_path(Run(tmp_path / 'run'), 'tiny_cnn')}"
    study = optuna.load_study(study_name="tiny_cnn", storage=storage)
    for rate in (1e-3, 2e-3):
        study.enqueue_trial({"learning_rate": rate, "batch_size": 16})
    told: list[TrialResult] = []
    tune(2, after_trial=told.append)
    assert [(t.number, t.learning_rate) for t in told] == [(1, 1e-3)]


# -- its database --------------------------------------------------------------------------


def test_a_disk_that_fills_while_tuning_is_the_machine_s_and_the_study_goes_on(
    tune: Callable[..., TuningResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(1)
    path = study_path(Run(tmp_path / "run"), "tiny_cnn")

    def full(*_: Any, **__: Any) -> None:
        with sqlite3.connect(path) as other:
            other.execute("pragma max_page_count = 1")
            other.execute("create table filler as select zeroblob(10000000)")

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", full)
        with pytest.raises(EnvironmentFault, match=r"tiny_cnn\.db"):
            tune(2)
    assert len(tune(2).trials) >= 2


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 4096])  # fmt: skip
def test_a_damaged_study_is_named(
    tune: Callable[..., TuningResult], tmp_path: Path, content: bytes
) -> None:
    path = study_path(Run(tmp_path / "run"), "tiny_cnn")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"tiny_cnn\.db"):
        tune(1)
    assert path.read_bytes() == content


@pytest.mark.parametrize("change", [{"epochs": 2}, {"label_smoothing": 0.1}])
def test_a_study_of_another_recipe_is_refused_with_what_differs(
    tune: Callable[..., TuningResult], change: dict[str, Any]
) -> None:
    tune(1)
    with pytest.raises(DataError, match=f"recipe.{next(iter(change))}"):
        tune(2, member=tiny(**change))


def test_a_study_of_other_data_is_refused(
    trained: Any, tune: Callable[..., TuningResult], tmp_path: Path
) -> None:
    tune(1)
    fewer = trained.manifest.take(np.arange(8, len(trained.manifest)))
    with pytest.raises(DataError, match="train: "):
        tune_member(tiny(), fewer, Run(tmp_path / "run"), n_trials=2, device="cpu")


def test_a_study_without_a_finite_loss_ends_in_so_many_words(
    tune: Callable[..., TuningResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise JobsFailedError("A loss is finite", "it became nan", "Lower the rate")

    monkeypatch.setattr(study_module.Fit, "run", fail)
    with pytest.raises(JobsFailedError, match="none of 6 did"):
        tune(2)


# -- what comes of it ----------------------------------------------------------------------


def test_the_best_values_are_kept_with_where_they_come_from(
    trained: Any, tune: Callable[..., TuningResult], tmp_path: Path
) -> None:
    best = tune(3).best_trial
    run = Run(tmp_path / "run")
    assert tuned_values(run, "tiny_cnn") == {
        "learning_rate": best.learning_rate, "batch_size": best.batch_size,
    }  # fmt: skip
    kept = json.loads(best_path(run, "tiny_cnn").read_text())
    assert kept["value"] == best.value
    assert kept["train"] == trained.manifest.part("train").digest
    assert tuned_values(run, "tiny_resnet") == {}


def test_the_next_training_takes_the_tuned_values_and_says_so(cli: CLI, slides: Path) -> None:
    common = ("--data", slides, "--members", "tiny_cnn", "--image-size", 16, "--epochs", 1, "--folds", 2,
              "--no-pretrained", "--device", "cpu", "--run", "run")  # fmt: skip
    assert cli("train-members", *common, "--slots", 1)[0] == 0
    code, said = cli("tune", *common, "--trials", 3, "--learning-rate", 3e-3, "--batch-size", 8)
    assert code == 0
    assert said.count("best") >= 1
    assert "--learning-rate" not in said.partition("Next: ")[2], "it would put the found one aside"
    assert "--batch-size" not in said.partition("Next: ")[2]
    values = tuned_values(Run("run"), "tiny_cnn")
    code, said = cli("train-members", *common, "--slots", 1)
    assert code == 0
    assert "(tuned)" in said
    assert "Its old folds are now in run/replaced/tiny_cnn-1" in said
    recipe = json.loads(Path("run/members/tiny_cnn/fold-0/recipe.json").read_text())
    assert {k: recipe[k] for k in values} == values
    code, said = cli("stack", "--run", "run", "--method", "vote", "--resamples", 20)
    assert "Caveat: tiny_cnn: its recipe was tuned on these folds" in said
