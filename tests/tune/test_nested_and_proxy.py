"""Nested tuning, and tuning by a proxy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit.tune.objective as objective_module
from ensemble_kit.errors import UsageError
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run
from ensemble_kit.tune.proxy import Proxy
from ensemble_kit.tune.tune_members import tune_members

pytestmark = pytest.mark.slow

CLI = Callable[..., tuple[int, str]]


@pytest.fixture
def tune(trained: Any, tmp_path: Path) -> Callable[..., Any]:
    member = Member(
        "tiny_cnn", image_size=16, pretrained=False,
        recipe=Recipe(epochs=1, batch_size=16, learning_rate=3e-3),
    )  # fmt: skip

    def call(n_trials: int, **options: Any) -> Any:
        return tune_members(
            [member], trained.manifest, trained.folds, Run(tmp_path / "run"), n_trials=n_trials,
            device="cpu", precision="fp32", **options,
        )  # fmt: skip

    return call


def test_nested_tuning_uses_the_other_folds_only(
    tune: Any, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, set[str]] = {}
    over_folds = objective_module.Objective._over_folds

    def spy(self: Any, *words: Any) -> Any:
        rows.setdefault(self.run.path.name, set()).update(self.train.sample_ids.tolist())
        return over_folds(self, *words)

    monkeypatch.setattr(objective_module.Objective, "_over_folds", spy)
    result = tune(2, nested=True)
    train = trained.manifest.part("train")
    fold = trained.folds.of(train)
    for k in range(trained.folds.n_splits):
        assert rows[f"fold-{k}"] == set(train.sample_ids[fold != k].tolist())
    (gain,) = result.nested
    assert gain.default == pytest.approx(result.members[0].default.loss)
    assert np.isfinite(gain.tuned)
    assert tune(2, nested=True).nested == result.nested


def test_some_trials_of_a_proxy_are_trained_in_full(
    tune: Any, trained: Any, tmp_path: Path
) -> None:
    result = tune(5, proxy=Proxy(images=0.5), prunes=False)
    (member,) = result.members
    assert [t.origin for t in member.trials][:1] == ["default"]
    assert len(member.trials) == 5
    cheap = json.loads((tmp_path / "run/tuned/proxy/tuned/tiny_cnn.json").read_text())
    assert cheap["train"] != trained.manifest.part("train").digest
    record = json.loads((tmp_path / "run/tuned/tiny_cnn.json").read_text())
    assert record["value"] == min(t.loss for t in member.trials)
    assert record["proxy"]["images"] == 0.5
    assert record["proxy"]["n_trials"] == 5
    assert -1 <= record["proxy"]["rank_correlation"] <= 1
    assert tune(5, proxy=Proxy(images=0.5), prunes=False) == result


def test_a_part_of_the_patients_has_every_fold_and_class(trained: Any) -> None:
    train = trained.manifest.part("train")
    part, folds = Proxy(images=0.5).part(train, trained.folds, seed=0)
    assert part.n_groups < train.n_groups
    assert folds.n_splits == trained.folds.n_splits
    assert set(part.labels) == set(train.labels)
    assert set(part.groups) <= set(train.groups)
    whole = {g: int((train.groups == g).sum()) for g in part.groups}
    assert {g: int((part.groups == g).sum()) for g in part.groups} == whole


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"nested": True, "objective": "team"}, "--nested"),
        ({"nested": True, "proxy": Proxy(epochs=1)}, "--proxy"),
        ({"proxy": Proxy(epochs=1), "storage": "postgresql://me@nowhere/db"}, "--storage"),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    tune: Any, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        tune(1, **options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("given", [{}, {"epochs": 0}, {"images": 1.0}, {"image_size": 2}])
def test_an_invalid_proxy_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(given), "setting")):
        Proxy(**given)


def test_the_command_prints_nested_gains_and_the_rank_correlation(cli: CLI, slides: Path) -> None:
    words = ("--data", slides, "--members", "tiny_cnn", "--image-size", 16, "--epochs", 1, "--folds", 3,
             "--no-pretrained", "--device", "cpu")  # fmt: skip
    code, printed = cli("tune", *words, "--run", "a", "--trials", 2, "--nested")
    assert (code, "Nested:" in printed) == (0, True), printed
    code, printed = cli("tune", *words, "--run", "b", "--trials", 4, "--proxy", "image_size=12")
    assert (code, "Rank correlation" in printed) == (0, True), printed
    code, printed = cli("tune", *words, "--run", "c", "--proxy", "epoch=3")
    assert (code, "epoch=3" in printed) == (2, True)
