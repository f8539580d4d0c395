"""Training of one job: the images that it uses, reproducibility, and its files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

import ensemble_kit.members.networks.build  # noqa: F401  (registers the tiny networks)
from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.files import read_csv
from ensemble_kit.folds import make_folds
from ensemble_kit.members.jobs.fold_files import read_record, write_network
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.training.fit import Fit

pytestmark = pytest.mark.slow

MakeJob = Callable[..., Job]
FILES = ("model.safetensors", "config.json", "logits-oof.npy", "logits-test.npy", "history.csv", "recipe.json")  # fmt: skip


def weights(job: Job) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in load_file(job.folder / "model.safetensors").items()}


def logits(job: Job) -> tuple[bytes, bytes]:
    oof, test = (np.load(job.folder / f"logits-{p}.npy") for p in ("oof", "test"))
    return oof.tobytes(), test.tobytes()


def run(job: Job) -> Job:
    run_job(job)
    return job


# -- images that a job may use -------------------------------------------------------------

BLIND_RECIPES = [{}, {"select_on": "inner"}, {"select_on": "inner", "patience": 1, "epochs": 6},
          {"schedule": "plateau", "select_on": "inner"}]  # fmt: skip


@pytest.mark.parametrize("recipe", BLIND_RECIPES, ids=str)
@pytest.mark.parametrize("part", ["held-out", "test"])
def test_weights_do_not_depend_on_held_out_images(
    make_job: MakeJob, with_pixels: Callable[[Job, str], Job], recipe: dict[str, object], part: str
) -> None:
    seen = run(make_job("a", **recipe))
    blind = run(with_pixels(make_job("b", **recipe), part))
    assert weights(seen) == weights(blind)
    assert logits(seen) != logits(blind)


def test_weights_do_depend_on_the_images_that_train(
    make_job: MakeJob, with_pixels: Callable[[Job, str], Job]
) -> None:
    assert weights(run(make_job("a"))) != weights(run(with_pixels(make_job("b"), "train")))


def test_selecting_on_the_held_out_fold_has_a_caveat(
    make_job: MakeJob, with_pixels: Callable[[Job, str], Job]
) -> None:
    seen = run(make_job("a", select_on="held-out-fold", epochs=6))
    record = read_record(seen.folder)
    assert record is not None
    (caveat,) = record["stamps"]
    assert "held-out fold" in caveat
    blind = read_record(
        run(with_pixels(make_job("b", select_on="held-out-fold", epochs=6), "held-out")).folder
    )
    assert blind is not None
    assert blind["chosen_epoch"] != record["chosen_epoch"]


def test_rows_and_patients_of_a_job_do_not_overlap(make_job: MakeJob) -> None:
    for select_on in ("none", "inner", "held-out-fold"):
        job = make_job(fold=1, select_on=select_on)
        parts = job.parts()
        group = dict(zip(job.tiles.rows(job.manifest.sample_ids).tolist(), job.manifest.groups, strict=True))  # fmt: skip
        fit, held_out, test, validation = (
            {group[i] for i in rows.tolist()}
            for rows in (parts.fit.train, parts.held_out, parts.test, parts.fit.validation)
        )
        assert not fit & held_out
        assert not fit & test
        assert not held_out & test
        assert not fit & validation
        assert not test & validation
        assert (validation == held_out) == (select_on != "inner")
        assert bool(validation & held_out) == (select_on != "inner")


def test_every_training_row_is_held_out_once(make_job: MakeJob) -> None:
    held_out: list[int] = []
    for fold in range(3):
        parts = make_job(fold=fold).parts()
        assert len(parts.fit.train) + len(parts.held_out) == 64
        held_out += parts.held_out.tolist()
    assert len(held_out) == len(set(held_out)) == 64


def test_labels_go_with_their_images(make_job: MakeJob) -> None:
    job = make_job(select_on="inner")
    label = dict(zip(job.manifest.sample_ids.tolist(), job.manifest.labels.tolist(), strict=True))
    fit = job.parts().fit
    for rows, labels in ((fit.train, fit.train_labels), (fit.validation, fit.validation_labels)):
        assert [label[i] for i in job.tiles.sample_ids[rows].tolist()] == labels.tolist()


def test_a_bag_draws_whole_patients_with_replacement(make_job: MakeJob) -> None:
    job = make_job(member={"bag": True})
    rows = job.parts().fit.train
    groups = dict(zip(job.tiles.sample_ids.tolist(), job.manifest.groups.tolist(), strict=True))
    drawn = [groups[i] for i in job.tiles.sample_ids[rows].tolist()]
    counts = {g: drawn.count(g) for g in set(drawn)}
    assert all(n % 4 == 0 for n in counts.values())
    assert max(counts.values()) > 4
    assert not {groups[i] for i in job.tiles.sample_ids[job.parts().held_out].tolist()} & set(drawn)


# -- reproducibility -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"member": {"drop_rate": 0.5}}, {"precision": "bf16"}, {"augmentation": "none"}],
)
def test_the_same_seed_gives_the_same_logits(
    make_job: MakeJob, settings: dict[str, object]
) -> None:
    first, second = run(make_job("a", **settings)), run(make_job("b", **settings))
    assert logits(first) == logits(second)
    assert weights(first) == weights(second)


def test_a_job_does_not_use_the_global_generators(make_job: MakeJob) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    np.random.seed(1)  # noqa: NPY002
    first = run(make_job("a"))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.random() == np.random.RandomState(1).random()  # noqa: NPY002
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert logits(run(make_job("b"))) == logits(first)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"member": {"seed": 1}}, {"member": {"name": "x"}}]
)
def test_another_seed_or_name_gives_another_network(
    make_job: MakeJob, change: dict[str, object]
) -> None:
    assert weights(run(make_job("a"))) != weights(run(make_job("b", **change)))


def test_the_seed_of_a_fold_does_not_depend_on_other_folds(make_job: MakeJob) -> None:
    first, second = make_job(fold=0), make_job(fold=1)
    assert first.model_seed != second.model_seed
    alone = run(make_job("alone", fold=1))
    run(make_job("both", fold=0))
    assert logits(run(make_job("both", fold=1))) == logits(alone)


# -- files ---------------------------------------------------------------------------------


def test_timm_opens_the_stored_network_and_it_gives_the_stored_logits(make_job: MakeJob) -> None:
    job = run(make_job())
    model = timm.create_model(f"local-dir:{job.folder}", pretrained=True).eval()
    config = model.pretrained_cfg
    held_out = job.parts().held_out
    images = torch.from_numpy(job.tiles.pixels[held_out].astype(np.float32) / 255).permute(
        0, 3, 1, 2
    )
    mean, std = (torch.tensor(config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        got = model((images - mean) / std).numpy()
    np.testing.assert_allclose(got, np.load(job.folder / "logits-oof.npy"), atol=1e-5)
    assert tuple(config["input_size"]) == (3, 16, 16)


def test_the_stored_network_names_its_classes(make_job: MakeJob) -> None:
    config = json.loads((run(make_job()).folder / "config.json").read_text())
    assert config["label_names"] == ["benign", "malignant"]


@pytest.mark.parametrize("published", [False, True])
def test_a_stored_network_has_only_its_own_size_and_origin(tmp_path: Path, published: bool) -> None:
    model: Any = timm.create_model("densenet121", num_classes=2)
    theirs = model.pretrained_cfg
    assert {"tag", "license", "test_input_size", "test_crop_pct"} <= theirs.keys()
    input_config = {
        "input_size": (3, 32, 32), "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bicubic",
        "crop_pct": 1.0, "crop_mode": "squash",
    }  # fmt: skip
    write_network(
        tmp_path / "f",
        model,
        class_names=["a", "b"],
        input_config=input_config,
        published=published,
    )
    config = json.loads((tmp_path / "f" / "config.json").read_text())["pretrained_cfg"]
    assert not [key for key in config if key.startswith("test_")]
    assert [config.get(k) for k in ("tag", "license")] == (
        [theirs["tag"], theirs["license"]] if published else [None, None]
    )
    opened = timm.create_model(f"local-dir:{tmp_path / 'f'}", pretrained=True)
    read = timm.data.resolve_data_config({}, model=opened, use_test_size=True)
    assert {k: read[k] for k in input_config} == input_config


def test_a_network_with_random_initial_weights_has_no_origin(make_job: MakeJob) -> None:
    job = run(make_job(epochs=1, member={"network": "test_resnet"}))
    config = json.loads((job.folder / "config.json").read_text())["pretrained_cfg"]
    assert not {"tag", "license"} & config.keys()


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_in_any_file_of_a_finished_fold_is_an_integrity_error(
    make_job: MakeJob, name: str
) -> None:
    job = run(make_job(epochs=1))
    path = job.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{name}' does not match its digest") as caught:
        job.finished()
    assert caught.value.exit_code == 7
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{name}' is missing"):
        job.finished()


def test_without_its_record_a_fold_is_not_finished(make_job: MakeJob) -> None:
    job = run(make_job(epochs=1))
    assert job.finished()
    (job.folder / "fold.json").unlink()
    assert not job.finished()


def test_changed_settings_are_refused_with_the_changed_keys(make_job: MakeJob) -> None:
    run(make_job(epochs=1))
    other = make_job(epochs=2, batch_size=8)
    with pytest.raises(
        DataError, match=r"recipe.batch_size: 16 -> 8, .*recipe.epochs: 1 -> 2"
    ) as caught:
        other.finished()
    assert caught.value.exit_code == 3


def test_a_job_of_other_folds_is_refused(make_job: MakeJob) -> None:
    job = run(make_job(epochs=1))
    other = dataclasses.replace(job, folds=make_folds(job.manifest, 3, seed=9))
    with pytest.raises(DataError, match="folds: "):
        other.finished()


def test_the_history_has_a_row_per_epoch_and_names_the_validation_rows(make_job: MakeJob) -> None:
    job = run(make_job(select_on="inner", epochs=3))
    history = read_csv(job.folder / "history.csv")
    assert history["epoch"].tolist() == ["0", "1", "2"]
    assert set(history["val_on"]) == {"validation split"}
    assert (history["train_loss"].astype(float) > 0).all()


def test_the_selected_epoch_is_the_best_on_the_validation_rows(make_job: MakeJob) -> None:
    job = run(make_job(select_on="inner", epochs=5, learning_rate=0.03))
    losses = read_csv(job.folder / "history.csv")["val_log_loss"].astype(float)
    record = read_record(job.folder)
    assert record is not None
    assert record["chosen_epoch"] == int(losses.argmin())


def test_patience_stops_early_and_the_fixed_schedule_does_not(make_job: MakeJob) -> None:
    patient = run(make_job("a", select_on="inner", patience=1, epochs=30, learning_rate=0.05))
    losses = read_csv(patient.folder / "history.csv")["val_log_loss"].astype(float)
    assert 2 <= len(losses) < 30
    assert losses.iloc[-1] >= losses.iloc[:-1].min()
    assert len(read_csv(run(make_job("b", epochs=4)).folder / "history.csv")) == 4


@pytest.mark.parametrize(
    "first", [{"optim": {"head_only_epochs": 4}}, {"warmup_epochs": 3.5}], ids=str
)
def test_patience_counts_epochs_at_the_full_rate_only(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, first: dict[str, Any]
) -> None:
    real = Fit.validation_logits
    flat = lambda self, *rest: 0 * real(self, *rest)  # noqa: E731
    monkeypatch.setattr(Fit, "validation_logits", flat)
    settings = {"select_on": "inner", "patience": 2, "epochs": 9, "warmup_epochs": 0, **first}
    assert len(read_csv(run(make_job(**settings)).folder / "history.csv")) == 4 + 2
