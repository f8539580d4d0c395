"""Changed or damaged data, missing devices and NaN are refused by name."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensemble_kit import archives
from ensemble_kit.audit.open import open_data
from ensemble_kit.checked import write_checked
from ensemble_kit.combiners.rules.voting import MajorityVote
from ensemble_kit.errors import DataError, JobsFailedError
from ensemble_kit.files import digest_bytes
from ensemble_kit.folds import make_folds
from ensemble_kit.images.decode import read_image
from ensemble_kit.images.digests import with_digests
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training.fit import Fit
from ensemble_kit.run import Run

pytestmark = pytest.mark.slow

CLI = Callable[..., tuple[int, str]]
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def words(data: Path, run: Path, *flags: str) -> list[object]:
    return [
        "train-members", "--data", data, "--members", "tiny_cnn", "--folds", 2, "--image-size", 16,
        "--epochs", 1, "--no-pretrained", "--slots", 1, "--run", run, "--device", "cpu", *flags,
    ]  # fmt: skip


def test_row_13_changed_images_are_refused_by_name_and_touched_images_are_not(
    slides: Path, tmp_path: Path, cli: CLI
) -> None:
    data, run = tmp_path / "slides", tmp_path / "run"
    shutil.copytree(slides, data)
    assert cli(*words(data, run))[0] == 0
    image, other = data / "benign" / "P01_0.png", data / "malignant" / "P12_0.png"
    os.utime(image, (1, 1))
    code, printed = cli(*words(data, run))
    assert code == 0
    assert "2 of 2 jobs are already finished" in printed
    before = image.read_bytes()

    image.write_bytes(other.read_bytes())
    code, printed = cli(*words(data, run))
    assert code == 3
    assert "P01_0" in printed
    image.write_bytes(before)

    added = data / "benign" / "P01_9.png"
    shutil.copy(other, added)
    code, printed = cli(*words(data, run))
    assert (code, "P01_9" in printed) == (3, True), printed
    added.unlink()

    image.unlink()
    code, printed = cli(*words(data, run))
    assert (code, "P01_0" in printed) == (3, True), printed
    image.write_bytes(before)
    assert cli(*words(data, run))[0] == 0


@NO_CUDA
@pytest.mark.parametrize("gpus", ["", "7", "no-such-gpu"])
def test_row_40_a_missing_device_gives_exit_4_before_training(
    slides: Path, tmp_path: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch, gpus: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    code, printed = cli(*words(slides, tmp_path / "run", "--device", "cuda"))
    assert code == 4
    assert "'cuda'" in printed
    assert not (tmp_path / "run").exists()


@NO_CUDA
def test_row_40_only_the_job_with_a_missing_device_fails_with_exit_4(
    slides: Path, tmp_path: Path, cli: CLI
) -> None:
    run = tmp_path / "run"
    assert cli(*words(slides, run))[0] == 0
    spec = run / "members" / "tiny_cnn" / "member.json"
    write_checked(spec, {**json.loads(spec.read_text()), "device": "cuda"})
    shutil.rmtree(run / "members" / "tiny_cnn" / "fold-0")
    code, printed = cli("run-job", run, "tiny_cnn", 0)
    assert code == 4
    assert "'cuda'" in printed
    assert (run / "members" / "tiny_cnn" / "fold-1" / "fold.json").is_file()


def test_row_35_a_job_with_nan_logits_fails_and_combiners_refuse_nan(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Fit.logits

    def broken(self: Fit, *arguments: Any, **options: Any) -> Any:
        logits = real(self, *arguments, **options)
        if self.seed == seeds[0]:
            logits[0, 0] = np.nan
        return logits

    seeds: list[int] = []
    start = Fit.start

    def recorded(*arguments: Any, **options: Any) -> Fit:
        seeds.append(options["seed"])
        return start(*arguments, **options)

    monkeypatch.setattr(Fit, "logits", broken)
    monkeypatch.setattr(Fit, "start", recorded)
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(epochs=1))
    run = Run(tmp_path / "run")
    with pytest.raises(JobsFailedError, match=r"1 of 3.*tiny_cnn fold 0"):
        fit_members([member], trained.manifest, trained.folds, run, device="cpu")
    assert not (run.fold_dir("tiny_cnn", 0) / "fold.json").exists()
    assert (run.fold_dir("tiny_cnn", 1) / "fold.json").is_file()
    logits = np.zeros((4, 3, 2), dtype=np.float32)
    logits[2, 1, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        MajorityVote().fit(np.zeros_like(logits), np.array([0, 1, 0, 1])).predict(logits)


def test_row_16_a_damaged_jpeg_that_still_decodes_is_found_by_its_digest(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 2, 96, 96, 3), dtype=np.uint8)
    for patient, images in enumerate(pixels):
        for name, image in zip("ab", images, strict=True):
            folder = tmp_path / "d" / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"P{patient}_0.jpg")
    manifest = Manifest.from_folders(tmp_path / "d", group_pattern=r"(P\d)_")
    manifest = with_digests(manifest)
    folds = make_folds(manifest, 2, seed=0)
    Run(tmp_path / "run").begin(manifest, folds, {})
    damaged = tmp_path / "d" / "b" / "P2_0.jpg"
    content, before = bytearray(damaged.read_bytes()), read_image(tmp_path, "d/b/P2_0.jpg")
    content[-1200:-1000] = bytes(200)
    damaged.write_bytes(content)
    assert (read_image(tmp_path, "d/b/P2_0.jpg") != before).any()
    assert with_digests(manifest).digest != manifest.digest
    (finding,) = open_data(tmp_path / "run")[1]
    assert finding.kind == "changed-since-the-run"
    assert finding.examples == ("b/P2_0.jpg",)


READ = """
import resource, sys, warnings
from ensemble_kit.errors import DataError
from ensemble_kit.images.decode import read_image
warnings.simplefilter("ignore")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print("read", read_image(*sys.argv[1:]).shape)
except DataError as error:
    print("refused", error.problem, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_row_22_an_image_of_a_hundred_megapixels_is_refused_without_decoding(
    processes: Any, tmp_path: Path
) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    done = processes.python(READ, tmp_path, "bomb.png")
    assert re.match(r"refused .*'bomb\.png'.* 10000 x 10000 ", done.stdout), done.stdout
    assert int(done.stdout.split()[-1]) < 8 * 1024  # KiB; the pixels would take 400 MB


def labelled(path: Path, images: Any) -> None:
    np.savez_compressed(path, train_images=images, train_labels=np.arange(len(images))[:, None] % 2)


def test_row_52_an_array_with_a_huge_unpacked_size_is_refused(
    tmp_path: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(tmp_path / "x.npz", np.zeros((32, 512, 512), np.uint8))
    monkeypatch.setattr(archives, "BOMB_BYTES", 2**22)  # to test with megabytes
    real = np.lib.format.read_array

    def read(file: Any, **options: Any) -> Any:
        assert "images" not in file.name, "unpacked"
        return real(file, **options)

    monkeypatch.setattr(np.lib.format, "read_array", read)
    code, printed = cli("data", "check", tmp_path / "x.npz")
    assert code == 3
    assert "'train_images'" in printed
    assert "8.0 MiB" in printed
    monkeypatch.setattr(archives, "MAX_ARRAY_BYTES", 2**20)
    with pytest.raises(DataError, match=r"8\.0 MiB"):
        archives.read_array(tmp_path / "x.npz", "train_images", max_bytes=2**20)


def test_row_52_a_zip_with_a_million_entries_is_refused(tmp_path: Path, cli: CLI) -> None:
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 9, 1, *[0] * 6) + b"a"
    flood = entry * 1_000_000
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, len(flood), 0, 0)
    (tmp_path / "x.npz").write_bytes(flood + end)
    code, printed = cli("data", "check", tmp_path / "x.npz")
    assert code == 3
    assert f"{len(flood)} bytes" in printed


def test_row_52_an_array_larger_than_free_memory_gives_exit_4_with_both_sizes(
    tmp_path: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(
        tmp_path / "x.npz", np.random.default_rng(0).integers(0, 256, (32, 128, 128), np.uint8)
    )
    monkeypatch.setattr(archives, "host_free", lambda: 2**18)
    code, printed = cli("data", "check", tmp_path / "x.npz")
    assert code == 4
    assert "0.5 MiB" in printed
    assert "0.2 MiB" in printed


@pytest.mark.parametrize("damage", ["missing", "whole", "bit", "cut", "empty"])
def test_row_60_missing_or_damaged_published_weights_are_refused_with_advice(
    slides: Path, tmp_path: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    whole = bytes(range(256)) * 8
    repository = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    blob = repository / "blobs" / digest_bytes(whole)
    if damage != "missing":
        for folder in ("blobs", "refs", "snapshots/1"):
            (repository / folder).mkdir(parents=True)
        (repository / "refs/main").write_text("1")
        (repository / "snapshots/1/model.safetensors").symlink_to(blob)
        broken = {"bit": whole[:-1] + b"\xfe", "cut": whole[:-9], "empty": b""}
        blob.write_bytes(broken.get(damage, whole))
    line = words(slides, tmp_path / "run")
    line[line.index("tiny_cnn")] = "resnet18"
    line.remove("--no-pretrained")
    code, printed = cli(*line)
    # The undamaged file passes the digest check but is not a network.
    want = {"missing": 4, "whole": 4}.get(damage, 7)
    assert code == want, printed
    assert "--weights PATH" in printed
    assert "resnet18" in printed
    assert ("snapshots/1/model.safetensors" in printed) == (want == 7)
    assert not list((tmp_path / "run").rglob("fold.json"))


def test_row_61_a_jumping_clock_changes_no_logit(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([0.0, 4e9, 1e9, -1.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=recipe)
    run = Run(tmp_path / "run")
    for shard in ((1, 2), (2, 2)):
        fit_members([member], trained.manifest, trained.folds, run, device="cpu", shard=shard)
    got, want = (one.store.read("tiny_cnn") for one in (run, trained.run))
    np.testing.assert_array_equal(got.oof, want.oof)
    for fold in want.test:
        np.testing.assert_array_equal(got.test[fold], want.test[fold])
