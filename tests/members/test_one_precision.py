"""All folds of a member are trained in one precision, also on several machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kit.checked import write_checked
from ensemble_kit.errors import DataError
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs import choose_precision as probe
from ensemble_kit.members.jobs.choose_precision import with_precision
from ensemble_kit.members.jobs.events import Event, JobStarted, Notice
from ensemble_kit.members.jobs.job_spec import open_job
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training.precision import Precision
from ensemble_kit.run import Run

Fit = Callable[..., list[Event]]
TINY = Member(
    "tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(epochs=1, batch_size=16)
)  # fmt: skip


@pytest.fixture
def fit(trained: Any, tmp_path: Path) -> Fit:
    def call(**options: Any) -> list[Event]:
        events: list[Event] = []
        fit_members(
            [TINY], trained.manifest, trained.folds, Run(tmp_path / "run"), device="cpu",
            listener=events.append, tensorboard=False, **options,
        )  # fmt: skip
        return events

    return call


def rule(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let `auto` choose this precision, as on another machine."""
    monkeypatch.setattr(
        probe,
        "choose_precision",
        lambda requested, _: Precision(name if requested == "auto" else requested),
    )


def started(events: list[Event]) -> set[str]:
    return {e.precision for e in events if isinstance(e, JobStarted)}


def test_another_precision_is_refused_once_folds_are_trained(fit: Fit, tmp_path: Path) -> None:
    assert started(fit(precision="bf16", shard=(1, 2))) == {"bf16"}
    with pytest.raises(DataError, match=r"fp32.*bf16") as caught:
        fit(precision="fp32", shard=(2, 2))
    assert "--retrain" in caught.value.advice
    assert not (tmp_path / "run" / "replaced").exists()
    events = fit(precision="fp32", retrain=True)
    assert started(events) == {"fp32"}
    assert sum(isinstance(e, JobStarted) for e in events) == 3


def test_a_requested_precision_holds_for_later_folds(fit: Fit) -> None:
    fit(precision="bf16", shard=(1, 2))
    assert started(fit()) == {"bf16"}


def test_a_begun_fold_sets_the_precision_of_the_other_folds(fit: Fit, tmp_path: Path) -> None:
    def stop(*_: Any) -> Any:
        folder = tmp_path / "run" / "members" / "tiny_cnn" / "fold-0"
        folder.mkdir(parents=True)
        (folder / "progress.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(precision="bf16", engine=stop)
    with pytest.raises(DataError, match=r"fp32.*bf16"):
        fit(precision="fp32")
    assert started(fit()) == {"bf16"}


def test_two_hosts_that_plan_one_after_the_other_use_the_same_precision(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(monkeypatch, "bf16")
    fit(engine=lambda jobs, _: [])
    rule(monkeypatch, "fp32")
    assert started(fit()) == {"bf16"}


def test_folds_on_another_device_can_differ_in_precision_with_a_notice(
    fit: Fit, tmp_path: Path, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(precision="bf16", shard=(1, 2))
    for path in (tmp_path / "run").rglob("fold.json"):
        write_checked(path, {**json.loads(path.read_text()), "device": "cuda:1"})
    rule(monkeypatch, "fp32")
    events = fit()
    assert started(events) == {"fp32"}
    printed = " ".join(e.text for e in events if isinstance(e, Notice))
    assert "bf16 on cuda" in printed
    assert "fp32 on cpu" in printed
    assert "--precision bf16" in printed


def test_the_first_remote_job_chooses_the_precision_for_auto(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(engine=lambda jobs, _: [])
    run = Run(tmp_path / "run")
    spec = run.member_dir("tiny_cnn") / "member.json"
    write_checked(spec, {**json.loads(spec.read_text()), "precision": "auto", "settled": {}})
    rule(monkeypatch, "bf16")
    assert open_job(run, "tiny_cnn", 0).precision == "bf16"
    rule(monkeypatch, "fp32")
    assert open_job(run, "tiny_cnn", 1).precision == "bf16"
    assert json.loads(spec.read_text())["settled"] == {"cpu": "bf16"}


def test_memory_is_released_after_the_speed_test(
    make_job: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[torch.device] = []
    monkeypatch.setenv("ENSEMBLE_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probe, "WORTH_A_PROBE", 0)
    monkeypatch.setattr(probe, "fastest_precision", lambda *_: "fp32")
    monkeypatch.setattr(probe, "release_cached_memory", given.append)
    (job,) = with_precision([make_job(precision="auto")], lambda _: None)
    assert (job.precision, given) == ("fp32", [torch.device("cpu")])
