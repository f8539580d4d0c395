"""Precisions are tried where that pays; what cannot be tried is said and passed over."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ensemble_kit.errors import UsageError
from ensemble_kit.members.jobs import choose_precision as probe
from ensemble_kit.members.jobs.choose_precision import Known, with_precision
from ensemble_kit.members.jobs.events import Event, Notice
from ensemble_kit.members.jobs.resume import load_resume, save_resume
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training import throughput as measure
from ensemble_kit.members.training.fit import Fit
from ensemble_kit.members.training.precision import (
    Precision,
    candidates,
    choose_precision,
    tensor_float32,
)
from ensemble_kit.members.training.state import Training
from ensemble_kit.members.training.throughput import Tried, fastest_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_KIT_CACHE", str(tmp_path / "cache"))


def test_a_compiler_pays_back_in_long_jobs_only() -> None:
    plain, compiled = Tried(1000.0), Tried(1250.0, start_seconds=60.0)
    even = 60 * 1000 * 1250 // 250
    assert compiled.seconds(even) == pytest.approx(plain.seconds(even))
    assert compiled.seconds(2 * even) < plain.seconds(2 * even)
    assert compiled.seconds(even // 2) > plain.seconds(even // 2)


def test_a_compiler_is_tried_on_cards_for_much_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    card = torch.device("cuda")
    assert candidates(card, 1e15) == ["bf16", "fp32", "bf16+tuned"]
    assert candidates(card, 1e17) == ["bf16", "fp32", "bf16+tuned", "bf16+compiled"]
    assert not any("+" in name for name in candidates(CPU, math.inf))


def test_a_card_that_emulates_bf16_trains_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    # As torch answers on a T4 or V100.
    def emulated(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", emulated)
    assert choose_precision("auto", torch.device("cuda")).name == "fp16"
    assert candidates(torch.device("cuda")) == ["fp16", "fp32", "fp16+tuned"]


def test_a_compiled_precision_is_its_number_format_and_more() -> None:
    precision = choose_precision("bf16+compiled", CPU)
    assert (precision.dtype, precision.autocasts, precision.scales_loss, precision.compiles) == (
        torch.bfloat16, True, False, True,
    )  # fmt: skip
    assert not Precision("bf16").compiles
    assert Precision("bf16").number_format == precision.number_format == "bf16"
    for name in ("bf16+quick", "bf16+", "half+tuned", "+tuned"):
        with pytest.raises(UsageError, match="A precision has a known name"):
            choose_precision(name, CPU)


@pytest.mark.parametrize("before", [False, True])
def test_kernels_are_timed_in_training_alone_and_only_where_that_is_asked_for(
    tiles: Any, make_job: Any, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    job, seen = make_job(epochs=1), []
    for name in ("fp32", "fp32+tuned"):
        fit = Fit.start(job.member, job.tiles, 2, device=CPU, precision=name, seed=0)
        fit.run(job.parts().fit, lambda _: seen.append(torch.backends.cudnn.benchmark))
        seen.append(torch.backends.cudnn.benchmark)
    assert seen == [False, before, True, before]


def test_what_timing_kernels_takes_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "candidates", lambda *_: ["fp32", "fp32+tuned"])
    tried: dict[str, Tried] = {"fp32": Tried(100.0), "fp32+tuned": Tried(125.0, 10.0)}
    batches: dict[str, int] = {}

    def trained(network: str, size: int, batch: int, n: int, device: Any, name: str) -> Any:
        batches[name] = batch
        return name, None

    monkeypatch.setattr(measure, "_trained", trained)
    monkeypatch.setattr(measure, "_as_tried", lambda name, _: tried[name])
    for n_images, best in ((1000, "fp32"), (10_000, "fp32+tuned")):
        assert fastest_precision("tiny_cnn", 16, 8, CPU, n_images=n_images)[0] == best
    assert batches == {"fp32": 8, "fp32+tuned": 10}, "no shape whose kernels are already chosen"


def with_compiler(monkeypatch: pytest.MonkeyPatch, compiler: Any) -> None:
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(measure, "candidates", lambda *_: ["fp32", "fp32+compiled"])
    monkeypatch.setattr(probe, "candidates", lambda *_: ["fp32", "fp32+compiled"])
    monkeypatch.setattr(probe, "WORTH_A_PROBE", 0)


def test_a_compiler_that_fails_is_recorded_and_the_run_goes_on_without(
    make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: nn.Module, **_: Any) -> Any:
        raise RuntimeError("no C compiler found\nand more")

    with_compiler(monkeypatch, broken)
    events: list[Event] = []
    (job,) = with_precision([make_job(precision="auto")], events.append)
    assert job.precision == "fp32"
    said = " ".join(e.text for e in events if isinstance(e, Notice))
    assert "fp32+compiled could not be tried here (RuntimeError: no C compiler found)" in said
    kept = Known(CPU, "precision").values
    assert "RuntimeError: no C compiler found" in kept.values()


def test_a_compiler_that_fails_in_its_first_step_is_passed_over_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(model: nn.Module, **_: Any) -> Any:
        def forward(images: Any) -> Any:
            raise RuntimeError("graph break")

        return forward

    with_compiler(monkeypatch, late)
    name, failed = fastest_precision("tiny_cnn", 16, 8, CPU, n_images=100)
    assert (name, failed) == ("fp32", {"fp32+compiled": "RuntimeError: graph break"})


def test_the_plain_precision_has_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "candidates", lambda *_: ["fp32", "bf16"])
    monkeypatch.setattr(measure, "_trained", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fastest_precision("tiny_cnn", 16, 8, CPU, n_images=100)


def test_steps_go_through_the_compiled_form_and_train_the_same_weights(
    tiles: Any, monkeypatch: pytest.MonkeyPatch, make_job: Any
) -> None:
    calls: list[int] = []

    def stand_in(model: nn.Module, **_: Any) -> Any:
        def forward(images: Any) -> Any:
            calls.append(len(images))
            return model(images)

        return forward

    monkeypatch.setattr(torch, "compile", stand_in)
    job = make_job(epochs=2)
    weights = {}
    for name in ("fp32", "fp32+compiled"):
        fit = Fit.start(job.member, job.tiles, 2, device=CPU, precision=name, seed=0)
        fit.run(job.parts().fit, lambda _: None)
        weights[name] = fit.model.state_dict()
    assert calls
    for key, value in weights["fp32"].items():
        assert torch.equal(value, weights["fp32+compiled"][key])


# -- at the edges -------------------------------------------------------------------------


def test_the_loss_scale_of_fp16_is_stored_and_goes_on(tmp_path: Path) -> None:
    def start() -> Training:
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        model.get_classifier = lambda: model[1]  # type: ignore[assignment]
        return Training.start(model, Recipe(), Precision("fp16"), CPU)

    before = start()
    assert before.scaler.is_enabled()
    # An overflow halves the scale.
    loss = before.model(torch.ones(2, 3, 2, 2)).sum() * float("inf")
    before.scaler.scale(loss).backward()
    before.scaler.step(before.optimizer)
    before.scaler.update()
    assert before.scaler.get_scale() == 2.0**15
    save_resume(tmp_path, before.state(), {"of": "this"})
    after = start()
    assert after.scaler.get_scale() == 2.0**16
    state = load_resume(tmp_path, {"of": "this"}, pytest.fail)
    assert state is not None
    after.restore(state)
    assert after.scaler.state_dict() == before.scaler.state_dict()


def test_a_state_without_a_scale_leaves_that_of_the_new_precision() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    model.get_classifier = lambda: model[1]  # type: ignore[assignment]
    plain = Training.start(model, Recipe(), Precision("fp32"), CPU)
    scaled = Training.start(model, Recipe(), Precision("fp16"), CPU)
    scaled.restore(plain.state())
    assert scaled.scaler.get_scale() == 2.0**16


def test_tf32_is_allowed_where_a_card_trains_and_never_in_what_is_kept(
    make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def switches() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    def fails() -> None:
        with tensor_float32(True):
            assert switches() == (True, True)
            raise KeyError

    before = switches()
    with pytest.raises(KeyError):
        fails()
    assert switches() == before
    seen: dict[bool, set[tuple[bool, bool]]] = {True: set(), False: set()}
    job = make_job(epochs=1)
    fit = Fit.start(job.member, job.tiles, 2, device=CPU, precision="fp32", seed=0)
    fit.model.register_forward_hook(lambda model, *_: seen[model.training].add(switches()))
    fit.run(job.parts().fit, lambda _: None)
    with tensor_float32(True):
        assert np.isfinite(fit.logits(job.parts().kept)).all()
    assert seen == {True: {(False, False)}, False: {(False, False)}}
