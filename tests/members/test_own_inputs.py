"""Members with different inputs: the network gets the input of its settings, on any machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from ensemble_kit.errors import DataError
from ensemble_kit.files import cache_folder, read_json
from ensemble_kit.folds import make_folds
from ensemble_kit.images.digests import with_digests
from ensemble_kit.images.tiles.build import build_tile_sets
from ensemble_kit.manifest.layouts.bci import read_bci
from ensemble_kit.manifest.phantom.write import write_phantom
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.job import CROP, Job
from ensemble_kit.members.jobs.job_spec import open_job
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.registry import FIXED_SIZE, NETWORKS, cost, native_size
from ensemble_kit.members.spec_string import make_members
from ensemble_kit.members.training.fit import Fit
from ensemble_kit.run import Run

pytestmark = pytest.mark.slow

MakeJob = Callable[..., Job]
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])


def by_hand(pixels: np.ndarray, color: str) -> np.ndarray:
    """Inputs before normalisation, shape (n, height, width, channels): a second implementation."""
    if color == "hed":
        return -np.log10((pixels + 1.0) / 256) @ np.linalg.inv(STAINS)
    if color == "grayscale":
        return (pixels @ np.array([0.299, 0.587, 0.114]))[..., None] / 255
    return pixels / 255.0


@pytest.mark.parametrize("color", ["rgb", "grayscale", "hed"])
def test_the_stored_network_gives_the_stored_logits_for_handmade_inputs(
    make_job: MakeJob, color: str
) -> None:
    job = make_job(member={"color": color})
    run_job(job)
    model = timm.create_model(f"local-dir:{job.folder}", pretrained=True).eval()
    config = model.pretrained_cfg
    held_out = job.parts().held_out
    mean, std = np.array(config["mean"]), np.array(config["std"])
    images = (by_hand(job.tiles.pixels[held_out], color) - mean) / std
    with torch.inference_mode():
        got = model(torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(got, np.load(job.folder / "logits-oof.npy"), atol=2e-4)
    assert config["input_size"] == (images.shape[3], 16, 16)
    printed = read_json(job.folder / "config.json").get("ensemble_kit")
    assert printed == (None if color == "rgb" else {"color": color})


def test_luma_has_the_statistics_of_grey(make_job: MakeJob) -> None:
    job = make_job(member={"color": "grayscale"})
    fit = Fit.start(job.member, job.tiles, 2, device=torch.device("cpu"), precision="fp32", seed=0)
    assert fit.mean == pytest.approx((0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406,))
    assert next(fit.model.parameters()).shape[1] == 1


@pytest.mark.parametrize(
    "change",
    [{"color": "hed"}, {"color": "lab"}, {"color": "grayscale"}, {"stain_norm": "reinhard"}, {"stain": "he"}],
    ids=str,
)  # fmt: skip
def test_a_finished_fold_of_another_input_is_refused(
    make_job: MakeJob, change: dict[str, str]
) -> None:
    job = make_job(epochs=1)
    run_job(job)
    other = dataclasses.replace(job, member=job.member.model_copy(update=change))
    (key,) = change
    with pytest.raises(DataError, match=f"member.{key}: the default -> {change[key]}"):
        other.finished()


def test_facts_leave_out_later_settings_at_their_defaults() -> None:
    facts = Member("tiny_cnn", image_size=16).facts(16)
    assert sorted(facts) == [
        "bag", "drop_rate", "head", "image_size", "network", "pretrained", "recipe", "seed", "tuned", "weights",
    ]  # fmt: skip
    assert "snapshots" not in facts["recipe"]
    assert "average_beside" not in facts["recipe"]["regularize"]


# -- pairs of stains, over a whole run -----------------------------------------------------

INPUTS = [
    "tiny_cnn", "tiny_cnn:stain=he", "tiny_cnn:stain=ihc:color=hed", "tiny_cnn:stain=he:stain_norm=macenko",
    "tiny_cnn:color=grayscale", "tiny_resnet:color=lab", "tiny_mobile:size=24:color=hed",
]  # fmt: skip


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Manifest, list[Member]]:
    """A run over pairs of H&E and IHC in six channels, its members' inputs all different."""
    root = tmp_path_factory.mktemp("pairs")
    data = write_phantom(root / "data", n_patients=16, images_per_patient=3, image_size=32)
    train, test = read_bci(data, stain="both", join="channels").split(test_size=0.25, seed=0)
    manifest = with_digests(train.joined(test))
    members = make_members(
        INPUTS, recipe=Recipe(epochs=1, batch_size=8), image_size=16, pretrained=False
    )
    run = Run(root / "run")
    fit_members(
        members, manifest, make_folds(manifest, 2, seed=0), run, device="cpu", tensorboard=False
    )
    return run, manifest, members


def test_every_input_of_a_pair_is_a_member_with_its_own_name(paired: Any) -> None:
    run, manifest, _ = paired
    table = run.predictions("test")
    assert table.member_names == (
        "tiny_cnn", "tiny_cnn-he", "tiny_cnn-ihc-hed", "tiny_cnn-he-macenko", "tiny_cnn-grayscale",
        "tiny_resnet-lab", "tiny_mobile-24px-hed",
    )  # fmt: skip
    assert np.isfinite(table.logits).all()
    assert len({table.logits[:, m].tobytes() for m in range(len(INPUTS))}) == len(INPUTS)
    assert len(table) == len(manifest.part("test"))


@pytest.mark.parametrize(
    ("member", "channels"),
    [("tiny_cnn", 6), ("tiny_cnn-he", 3), ("tiny_cnn-grayscale", 2), ("tiny_resnet-lab", 6)],
)
def test_a_network_has_the_channels_of_its_images(paired: Any, member: str, channels: int) -> None:
    run, _, _ = paired
    model = timm.create_model(f"local-dir:{run.fold_dir(member, 0)}", pretrained=True)
    assert next(model.parameters()).shape[1] == channels
    spec = read_json(run.member_dir(member) / "member.json")
    assert spec["parameters"] == sum(p.numel() for p in model.parameters())


def test_a_job_opened_on_another_machine_has_the_same_tiles(
    paired: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, manifest, members = paired
    specs = [spec for m in members for spec in (m.tile_spec, m.eval_spec)]
    planned = build_tile_sets(manifest, specs, cache_dir=cache_folder(), crop=CROP)
    monkeypatch.setenv("ENSEMBLE_KIT_CACHE", str(tmp_path / "another-machine"))
    for member in members:
        job = open_job(run, member.name, 1)
        assert job.member == member
        assert job.tiles.digest == planned[member.tile_spec].digest
        np.testing.assert_array_equal(job.tiles.pixels, planned[member.tile_spec].pixels)
        assert job.finished()


def test_a_member_trained_on_another_machine_has_the_same_logits(
    paired: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    run, _, _ = paired
    copied = Run(shutil.copytree(run.path, tmp_path / "run"))
    name = "tiny_cnn-he-macenko"
    want = np.load(copied.fold_dir(name, 0) / "logits-oof.npy")
    shutil.rmtree(copied.fold_dir(name, 0))
    monkeypatch.setenv("ENSEMBLE_KIT_CACHE", str(tmp_path / "another-machine"))
    run_job(open_job(copied, name, 0))
    np.testing.assert_array_equal(np.load(copied.fold_dir(name, 0) / "logits-oof.npy"), want)


# -- networks of other channel counts ------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("network", ["resnet18", "efficientnet_b0", "densenet121", "efficientnetv2_b0",
                                     *(n for n in NETWORKS if NETWORKS[n][0].startswith("ek_"))])  # fmt: skip
def test_all_networks_accept_one_two_and_six_channels(network: str, channels: int) -> None:
    # Some networks are built for one size, and have 126 million parameters at their native one.
    size = 32 if NETWORKS[network][0] in FIXED_SIZE else min(native_size(network), 64)
    member = Member(network, pretrained=False)
    model = build_network(member, 2, image_size=size, in_channels=channels)
    with torch.inference_mode():
        assert model.eval()(torch.zeros(2, channels, size, size)).shape == (2, 2)
    counted = cost(network, size, 2, channels).parameters
    assert counted == sum(p.numel() for p in model.parameters())
