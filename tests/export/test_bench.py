"""`bench` measures every backend of a bundle, and reports a backend that fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.errors import UsageError
from ensemble_kit.export import bench
from ensemble_kit.export.bundle import export_bundle

CLI = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def bundle(stacked: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "b"
    export_bundle(stacked.run, out, method="vote")
    return out


def test_values_of_a_backend_are_positive_and_ordered(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "N_SINGLE", 5)
    bench.main(str(bundle), "torch")
    found = json.loads(capsys.readouterr().out)
    assert found["error"] == ""
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert found["images_per_second"] > 0
    assert found["memory_mib"] > 10


def test_the_command_prints_each_backend_and_the_reason_of_a_failure(
    bundle: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.sys, "executable", "false")
    code, printed = cli("bench", bundle)
    assert code == 0
    assert "torch" in printed
    assert "code 1" in printed
    with pytest.raises(UsageError, match="thesis"):
        bench.bench_bundle("thesis")
