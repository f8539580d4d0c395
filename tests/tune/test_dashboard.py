"""optuna-dashboard can read the storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run
from ensemble_kit.tune.storage import storage_path
from ensemble_kit.tune.tune_members import tune_members


def test_the_dashboard_opens_the_storage(trained: Any, tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    run = Run(tmp_path / "run")
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(epochs=1))
    tune_members([member], trained.manifest, trained.folds, run, n_trials=3, device="cpu")
    app = dashboard.wsgi(f"sqlite:///{storage_path(run)}")

    def get(path: str) -> Any:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ["PATH_INFO"] = path
        status: list[str] = []
        body = b"".join(app(environ, lambda code, _headers, *_: status.append(code)))
        assert status == ["200 OK"], body
        return json.loads(body)

    (study,) = get("/api/studies")["study_summaries"]
    assert study["study_name"] == "tiny_cnn"
    trials = get(f"/api/studies/{study['study_id']}")["trials"]
    assert [t["number"] for t in trials] == [0, 1, 2]
    assert {t["state"] for t in trials} == {"Complete"}
