"""Methods over pooled features reproduce the run's predictions, also from a bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.arrays import softmax
from ensemble_kit.checked import write_checked
from ensemble_kit.errors import IntegrityError, UsageError
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.explanation.choose_images import choose_images
from ensemble_kit.export.bundle import export_bundle
from ensemble_kit.files import read_csv
from ensemble_kit.inference.ensemble import load_ensemble
from ensemble_kit.members.fit_members import fit_members

METHODS = ("feature-mlp", "pooled-mlp")


@pytest.fixture(scope="module")
def featured(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with stored features; one member uses TTA. Both methods are stacked."""
    run = ek.Run(tmp_path_factory.mktemp("features") / "run")
    plain = ek.Recipe(epochs=1, batch_size=16)
    mirrored = ek.Recipe(epochs=1, batch_size=16, regularize={"tta": "flips"})
    members = [
        ek.Member("tiny_cnn", image_size=16, pretrained=False, recipe=mirrored),
        ek.Member("tiny_mobile", image_size=16, pretrained=False, recipe=plain, head=(8,)),
    ]
    fit_members(members, trained.manifest, trained.folds, run, device="cpu", keep_features=True)
    stack_run(run, METHODS, protocol=Protocol(n_resamples=0, fallback=False))
    return run


@pytest.fixture(scope="module")
def bundle(featured: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("features") / "b"
    export_bundle(featured, out, method="pooled-mlp")
    return out


def stored(run: Any, method: str, class_names: tuple[str, ...]) -> Any:
    rows = read_csv(run.ensemble_dir(method) / "predictions.csv")
    ids = run.manifest().part("test").sample_ids
    test = rows[rows["split"] == "test"].set_index("sample_id").loc[ids]
    return test[[f"p_{c}" for c in class_names]].astype(float).to_numpy()


@pytest.mark.parametrize("method", METHODS)
def test_the_runs_own_test_images_get_the_stored_predictions(
    featured: Any, method: str, test_paths: list[Path]
) -> None:
    opened = load_ensemble(featured, method=method, device="cpu")
    want = stored(featured, method, opened.class_names)
    assert np.ptp(want) > 0.01
    np.testing.assert_allclose(opened.predict_proba(test_paths), want, atol=1e-5)
    logits = featured.predictions("test").select(opened.member_names).logits
    found = opened.predict_all(test_paths).member_proba
    np.testing.assert_allclose(found, softmax(logits), atol=1e-5)


def test_a_bundle_gives_the_stored_predictions(
    featured: Any, bundle: Path, test_paths: list[Path]
) -> None:
    opened = load_ensemble(bundle, device="cpu")
    want = stored(featured, "pooled-mlp", opened.class_names)
    np.testing.assert_allclose(opened.predict_proba(test_paths), want, atol=1e-5)


def test_features_that_need_logits_only_are_refused_for_feature_methods(
    featured: Any, tmp_path: Path
) -> None:
    for how in ({"folds": "best"}, {"folds": "soup"}, {"graph": "onnx"}):
        with pytest.raises(UsageError, match="feature-mlp"):
            export_bundle(featured, tmp_path / "b", method="feature-mlp", **how)
    assert list(tmp_path.iterdir()) == []
    opened = load_ensemble(featured, method="feature-mlp", device="cpu")
    with pytest.raises(UsageError, match="feature-mlp"):
        opened.explain([np.zeros((16, 16, 3), np.uint8)])
    with pytest.raises(UsageError, match="feature-mlp"):
        choose_images(featured, opened, "worst", 2)


def _other_fold(record: dict[str, Any]) -> None:
    record["members"][0]["networks"][2]["fold"] = 7


def _same_fold(record: dict[str, Any]) -> None:
    record["members"][0]["networks"][2]["fold"] = 1


@pytest.mark.parametrize("edit", [_other_fold, _same_fold])
def test_members_with_networks_of_different_folds_are_refused(
    bundle: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None]
) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "own"))
    record = json.loads((own / "bundle.json").read_text())
    edit(record)
    write_checked(own / "bundle.json", record)
    with pytest.raises(IntegrityError, match="fold"):
        load_ensemble(own, device="cpu")
