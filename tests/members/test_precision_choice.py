"""The choice of a precision, and the loss scale of a resumed training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ensemble_kit.errors import UsageError
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
from ensemble_kit.members.training.throughput import fastest_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_KIT_CACHE", str(tmp_path / "cache"))


def test_a_gpu_that_emulates_bf16_trains_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a T4 or V100.
    def emulated(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", emulated)
    assert choose_precision("auto", torch.device("cuda")).name == "fp16"
    assert candidates(torch.device("cuda")) == ["fp16", "fp32"]


@pytest.mark.parametrize("fast", ["bf16", "fp32"])
def test_the_fastest_precision_is_chosen(monkeypatch: pytest.MonkeyPatch, fast: str) -> None:
    def trained(network: str, size: int, batch: int, n: int, device: Any, name: str) -> Any:
        speed = 2.0 if name == fast else 1.0
        history = [{"images_per_second": one} for one in (9.0 / speed, speed, speed)]
        return SimpleNamespace(training=SimpleNamespace(history=history)), None

    monkeypatch.setattr(measure, "candidates", lambda _: ["bf16", "fp32"])
    monkeypatch.setattr(measure, "_trained", trained)
    assert fastest_precision("tiny_cnn", 16, 8, CPU) == fast


def test_a_single_candidate_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "candidates", lambda _: ["fp32"])
    monkeypatch.setattr(measure, "_trained", lambda *_: 1 / 0)
    assert fastest_precision("tiny_cnn", 16, 8, CPU) == "fp32"


@pytest.mark.parametrize("name", ["bf16+compiled", "half", ""])
def test_an_unknown_precision_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        choose_precision(name, CPU)


# -- loss scale and TF32 ------------------------------------------------------------------


def test_the_loss_scale_of_fp16_is_stored_and_restored(tmp_path: Path) -> None:
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


def test_a_state_without_a_loss_scale_does_not_change_the_scale() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    model.get_classifier = lambda: model[1]  # type: ignore[assignment]
    plain = Training.start(model, Recipe(), Precision("fp32"), CPU)
    scaled = Training.start(model, Recipe(), Precision("fp16"), CPU)
    scaled.restore(plain.state())
    assert scaled.scaler.get_scale() == 2.0**16


def test_tf32_is_off_on_the_cpu_and_for_stored_logits(
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
        assert np.isfinite(fit.logits(job.parts().held_out)).all()
    assert seen == {True: {(False, False)}, False: {(False, False)}}
