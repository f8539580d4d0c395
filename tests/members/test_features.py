"""Pooled features: their values, and storing them during or after training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.files import read_json
from ensemble_kit.members import fit_members as crossfit
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.fold_files import read_features, read_record
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.pooled_features import lacks_features
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network, pooled_features
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

MakeJob = Callable[..., Job]
NETWORKS = [
    {},
    {"network": "tiny_mobile"},
    {"network": "cnn4"},
    {"network": "resnet18"},
    {"network": "tiny_resnet", "head": (8,)},
]


def with_kept_features(job: Job) -> Job:
    return dataclasses.replace(job, keep_features=True)


def by_hand(job: Job, rows: np.ndarray, folder: Path) -> np.ndarray:
    """Features of rows by the stored network, one image at a time, through a hook on its classifier."""
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True)
    config = model.pretrained_cfg
    mean, std = (np.array(config[k], np.float32) for k in ("mean", "std"))
    seen: list[torch.Tensor] = []
    model.eval().get_classifier().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        for row in rows:
            pixels = (job.tiles.pixels[row].astype(np.float32) / 255 - mean) / std
            model(torch.from_numpy(pixels.transpose(2, 0, 1))[None])
    return torch.cat(seen).flatten(1).numpy()


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_features_are_the_input_of_the_stored_classifier(
    make_job: MakeJob, network: dict[str, Any]
) -> None:
    job = with_kept_features(make_job(member=network, epochs=1))
    run_job(job)
    parts = job.parts()
    held_out, tested = read_features(job.folder)
    np.testing.assert_allclose(
        held_out, by_hand(job, parts.held_out, job.folder), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(tested, by_hand(job, parts.test, job.folder), rtol=1e-4, atol=1e-5)
    assert held_out.dtype == np.float32
    assert held_out.std(axis=0).max() > 1e-3


def test_storing_features_changes_no_logits_and_no_settings(make_job: MakeJob) -> None:
    plain, with_features = make_job("a"), with_kept_features(make_job("b"))
    run_job(plain)
    run_job(with_features)
    a, b = read_record(plain.folder), read_record(with_features.folder)
    assert a is not None
    assert b is not None
    assert a["digest"] == b["digest"]
    both = {name: digest for name, digest in b["files"].items() if name in a["files"]}
    timed = {"history.csv"}
    assert {n: d for n, d in a["files"].items() if n not in timed} == {
        n: d for n, d in both.items() if n not in timed
    }
    assert set(b["files"]) - set(a["files"]) == {"features-oof.npy", "features-test.npy"}


def test_features_requested_later_are_equal_and_nothing_is_trained(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"snapshots": 2, "epochs": 2}
    then, later = with_kept_features(make_job("a", **recipe)), make_job("b", **recipe)
    run_job(then)
    run_job(later)
    assert not (later.folder / "features-oof.npy").exists()
    weights = (later.folder / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr("ensemble_kit.members.training.fit.run_epochs", lambda *_, **__: 1 / 0)
    assert lacks_features(with_kept_features(later))
    run_job(with_kept_features(later))
    assert not lacks_features(with_kept_features(later))
    assert (later.folder / "model.safetensors").stat().st_mtime_ns == weights
    a, b = read_record(then.folder), read_record(later.folder)
    assert a is not None
    assert b is not None
    names = [n for n in a["files"] if "features" in n]
    assert sorted(names) == [
        "features-oof.npy", "features-test.npy", "snap1/features-oof.npy", "snap1/features-test.npy",
    ]  # fmt: skip
    assert {n: a["files"][n] for n in names} == {n: b["files"][n] for n in names}
    assert a["files"]["features-oof.npy"] != a["files"]["snap1/features-oof.npy"]


def test_a_damaged_feature_file_is_refused(make_job: MakeJob) -> None:
    job = with_kept_features(make_job(epochs=1))
    run_job(job)
    path = job.folder / "features-test.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"features-test\.npy' does not match its digest"):
        job.finished()


def test_features_are_averaged_over_tta_views_like_logits(make_job: MakeJob) -> None:
    job = with_kept_features(make_job(epochs=1, regularize={"tta": "flips"}))
    run_job(job)
    model: Any = timm.create_model(f"local-dir:{job.folder}", pretrained=True).eval()
    held_out, _ = read_features(job.folder)
    logits = np.load(job.folder / "logits-oof.npy")
    with torch.inference_mode():
        again = model.get_classifier()(torch.from_numpy(held_out)).numpy()
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-5)


def test_a_network_without_pooled_features_is_refused() -> None:
    with pytest.raises(DataError, match=r"keep_features"):
        pooled_features(torch.nn.Linear(2, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "densenet121", "tf_efficientnetv2_b0"])  # fmt: skip
def test_networks_of_the_catalogue_have_pooled_features(name: str) -> None:
    model: Any = build_network(Member(name, pretrained=False), 3, image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        pooled = pooled_features(model, images)
        torch.testing.assert_close(model.get_classifier()(pooled), model(images))


# -- through a run -------------------------------------------------------------------------


@pytest.fixture
def fit(trained: Any, tmp_path: Path) -> Callable[..., Run]:
    recipe = Recipe(epochs=1, batch_size=16)
    members = [
        Member(name, image_size=16, pretrained=False, recipe=recipe)
        for name in ("tiny_cnn", "tiny_mobile")
    ]

    def made(**how: Any) -> Run:
        run = Run(tmp_path / "run")
        fit_members(members, trained.manifest, trained.folds, run, device="cpu", **how)
        return run

    return made


def test_stored_features_follow_the_manifest(fit: Callable[..., Run], trained: Any) -> None:
    run = fit(keep_features=True)
    stored = run.store.read_features("tiny_mobile")
    assert stored is not None
    train = trained.manifest.part("train")
    fold = trained.folds.of(train)
    for k in range(3):
        held_out, tested = read_features(run.fold_dir("tiny_mobile", k))
        np.testing.assert_array_equal(stored.oof[fold == k], held_out)
        np.testing.assert_array_equal(stored.test[k], tested)
    assert stored.oof.shape == (len(train), 96)
    index = read_json(run.path / "predictions/tiny_mobile/index.json")
    assert sorted(index["features"]) == [
        "features-oof.npy", *(f"features-test-fold-{k}.npy" for k in range(3)),
    ]  # fmt: skip


def test_a_finished_run_gets_its_features_without_retraining(
    fit: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fit().predictions("oof")
    assert fit().store.read_features("tiny_cnn") is None
    monkeypatch.setattr("ensemble_kit.members.training.fit.run_epochs", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(crossfit, "require_init_checkpoints", lambda members: members and 1 / 0)
    run = fit(keep_features=True)
    np.testing.assert_array_equal(run.predictions("oof").logits, before.logits)
    assert run.store.read_features("tiny_cnn") is not None
    fit()
    assert run.store.read_features("tiny_cnn") is not None
