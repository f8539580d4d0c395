"""A bundle predicts the same as its run. An incomplete or damaged bundle is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit import archives
from ensemble_kit.checked import OWN_DIGEST, write_checked
from ensemble_kit.errors import DataError, EnvironmentFault, IntegrityError, UsageError
from ensemble_kit.export.bundle import export_bundle
from ensemble_kit.files import digest_file, write_json
from ensemble_kit.inference.bundle_files import RECORD
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble
from ensemble_kit.inference.image_caveats import TRAINED

CLI = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def bundle(stacked: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's `simplex` as a folder. Copy before you change it."""
    out = tmp_path_factory.mktemp("bundles") / "slides"
    export_bundle(stacked.run, out, method="simplex")
    return out


@pytest.fixture
def own(bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "own"))


@pytest.fixture
def zipped(bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """The bundle as a zip archive, with additional entries."""

    def write(**more: bytes) -> Path:
        out = tmp_path / "bundle.zip"
        with zipfile.ZipFile(out, "w") as archive:
            for path in sorted(bundle.rglob("*")):
                if path.is_file():
                    archive.write(path, f"slides/{path.relative_to(bundle).as_posix()}")
            for name, content in more.items():
                archive.writestr(name, content)
        return out

    return write


def change(bundle: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit the record and update its digest."""
    record = json.loads((bundle / RECORD).read_text())
    edit(record)
    write_checked(bundle / RECORD, record)


def test_a_bundle_predicts_the_same_as_its_run(
    ensemble: Ensemble, bundle: Path, test_paths: list[Path]
) -> None:
    opened = load_ensemble(bundle, device="cpu")
    assert (opened.class_names, opened.member_names) == (
        ensemble.class_names,
        ensemble.member_names,
    )
    want, found = ensemble.predict_all(test_paths), opened.predict_all(test_paths)
    np.testing.assert_allclose(found.proba, want.proba, atol=1e-6)
    np.testing.assert_allclose(found.member_proba, want.member_proba, atol=1e-6)
    assert found.classes.tolist() == want.classes.tolist()
    assert found.decisions == want.decisions
    assert opened.predict_sets(test_paths) == ensemble.predict_sets(test_paths)
    assert not [p for p in bundle.rglob("*") if p.suffix not in ("", ".json", ".md", ".png", ".safetensors")]  # fmt: skip


def test_a_zip_predicts_the_same_as_the_folder(
    stacked: Any, bundle: Path, tmp_path: Path, test_paths: list[Path]
) -> None:
    done = export_bundle(stacked.run, tmp_path / "own.zip", method="simplex")
    assert [p.name for p in tmp_path.iterdir()] == ["own.zip"]
    assert done.path == tmp_path / "own.zip"
    want = load_ensemble(bundle, device="cpu").predict_proba(test_paths)
    found = load_ensemble(tmp_path / "own.zip", device="cpu").predict_proba(test_paths)
    np.testing.assert_array_equal(found, want)


def test_every_file_except_the_record_has_a_digest(bundle: Path) -> None:
    listed = json.loads((bundle / RECORD).read_text())["files"]
    there = {p.relative_to(bundle).as_posix(): p for p in bundle.rglob("*") if p.is_file()}
    assert set(there) == {*listed, RECORD}
    assert {n: about["sha256"] for n, about in listed.items()} == {
        n: digest_file(p) for n, p in there.items() if n != RECORD
    }


def test_the_model_card_has_use_metrics_and_licence(bundle: Path, ensemble: Ensemble) -> None:
    card = load_ensemble(bundle, device="cpu").card
    assert card.startswith('---\nlicense: "unknown"\n')
    for heading in (
        "Intended use",
        "What it must not be used for",
        "Metrics",
        "Limits and caveats",
    ):
        assert f"\n## {heading}\n" in card
    assert "not a medical device" in card
    assert "balanced accuracy" in card
    assert ensemble.card == card


def test_an_edited_model_card_gives_a_note(own: Path) -> None:
    (own / "README.md").write_text("mine\n")
    opened = load_ensemble(own, device="cpu")
    assert opened.card == "mine\n"
    assert any("card" in note for note in opened.notes)


@pytest.mark.parametrize("name", ["golden.json", "golden/0.png", "members/tiny_cnn/fold-0.safetensors"])  # fmt: skip
def test_a_changed_byte_is_refused_with_the_file_name(own: Path, name: str) -> None:
    content = bytearray((own / name).read_bytes())
    content[len(content) // 2] ^= 1
    (own / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=name) as caught:
        load_ensemble(own, device="cpu")
    assert caught.value.exit_code == 7


def test_a_changed_record_a_newer_schema_and_a_missing_file_are_refused(own: Path) -> None:
    record = json.loads((own / RECORD).read_text())
    write_json(own / RECORD, {**record, "method": "mean"})
    with pytest.raises(IntegrityError, match=RECORD):
        load_ensemble(own, device="cpu")
    write_json(own / RECORD, {**record, "schema_version": 99})
    with pytest.raises(IntegrityError, match="version 99"):
        load_ensemble(own, device="cpu")
    write_json(own / RECORD, record)
    (own / "members/tiny_mobile/fold-1.safetensors").unlink()
    with pytest.raises(IntegrityError, match="members/tiny_mobile/fold-1"):
        load_ensemble(own, device="cpu")


def _other_order(record: dict[str, Any]) -> None:
    record["class_names"].reverse()


def _no_member(record: dict[str, Any]) -> None:
    record["members"].pop()


def _no_networks(record: dict[str, Any]) -> None:
    record["members"][0]["networks"] = []


def _hub_network(record: dict[str, Any]) -> None:
    record["members"][0]["settings"]["network"] = "hf-hub:some/one"


def _no_method(record: dict[str, Any]) -> None:
    del record["combiner"]


@pytest.mark.parametrize("edit", [_other_order, _no_member, _no_networks, _hub_network, _no_method])  # fmt: skip
def test_parts_that_do_not_belong_together_are_refused(
    own: Path, edit: Callable[[dict[str, Any]], Any]
) -> None:
    change(own, edit)
    with pytest.raises(IntegrityError) as caught:
        load_ensemble(own, device="cpu")
    assert "own" in str(caught.value)


def test_golden_images_with_other_probabilities_are_refused(own: Path) -> None:
    golden = json.loads((own / "golden.json").read_text())
    golden["probabilities"][0] = golden["probabilities"][0][::-1]
    write_json(own / "golden.json", golden)
    about = {"sha256": digest_file(own / "golden.json"), "bytes": (own / "golden.json").stat().st_size}  # fmt: skip
    change(own, lambda record: record["files"].update({"golden.json": about}))
    with pytest.raises(EnvironmentFault, match="torch"):
        load_ensemble(own, device="cpu")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["EVIL"],)


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """A pickle that creates a folder if it is loaded."""
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    yield pickle.dumps(_Evil())
    assert not (tmp_path / "ran").exists()


def test_an_additional_pickle_is_refused(own: Path, evil: bytes) -> None:
    (own / "model.pkl").write_bytes(evil)
    with pytest.raises(IntegrityError, match=r"model\.pkl"):
        load_ensemble(own, device="cpu")


def test_a_pickle_instead_of_weights_is_refused(own: Path, evil: bytes) -> None:
    name = "members/tiny_cnn/fold-0.safetensors"
    (own / name).write_bytes(evil)
    about = {"sha256": digest_file(own / name), "bytes": len(evil)}
    change(own, lambda record: record["files"].update({name: about}))
    with pytest.raises(IntegrityError):
        load_ensemble(own, device="cpu")


@pytest.mark.parametrize("name", ["../evil.json", "slides/../../evil.json", "/evil", "C:\\evil"])
def test_a_zip_with_names_outside_the_bundle_is_refused(
    zipped: Callable[..., Path], name: str
) -> None:
    path = zipped(**{name: b"x"})
    with pytest.raises(IntegrityError) as caught:
        load_ensemble(path, device="cpu")
    assert name.removeprefix("slides/") in str(caught.value)
    assert [p.name for p in path.parent.iterdir()] == ["bundle.zip"]


def test_a_zip_bomb_and_a_text_called_zip_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 2**20)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", bytes(4 * 2**20))
    with pytest.raises(DataError, match=r"4\.0 MiB"):
        load_ensemble(bomb, device="cpu")
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(IntegrityError, match=r"text\.zip"):
        load_ensemble(tmp_path / "text.zip", device="cpu")


def test_a_bundle_has_one_method_and_a_run_has_no_graph(bundle: Path, stacked: Any) -> None:
    with pytest.raises(UsageError, match="vote"):
        load_ensemble(bundle, method="vote", device="cpu")
    with pytest.raises(UsageError, match="'onnxruntime'"):
        load_ensemble(bundle, device="cpu", backend="onnxruntime")
    with pytest.raises(UsageError, match="'openvino'"):
        load_ensemble(stacked.run, device="cpu", backend="openvino")
    with pytest.raises(UsageError, match="'onnx'"):
        load_ensemble(bundle, device="cpu", backend="onnx")


def test_files_of_version_control_are_ignored(own: Path) -> None:
    (own / ".git").mkdir()
    (own / ".git" / "HEAD").write_text("ref")
    (own / ".gitattributes").write_text("*.safetensors lfs")
    assert load_ensemble(own, device="cpu").method == "simplex"
    assert OWN_DIGEST in json.loads((own / RECORD).read_text())


def test_the_command_predicts_with_a_bundle(cli: CLI, bundle: Path, slides: Path) -> None:
    code, printed = cli(
        "predict", slides / "benign" / "P00_0.png", "--run", bundle, "--device", "cpu"
    )
    assert code == 0, printed
    assert printed.splitlines()[0] == f"Bundle: {bundle.as_posix()}. Method: simplex."


def test_a_training_image_gets_the_caveat_from_a_bundle(
    bundle: Path, stacked: Any, tmp_path: Path, test_paths: list[Path]
) -> None:
    train = stacked.manifest.part("train")
    renamed = shutil.copy(train.root / train.table["path"].iloc[0], tmp_path / "new.png")
    opened = load_ensemble(bundle, device="cpu")
    of_run = load_ensemble(stacked.run, method="simplex", device="cpu")
    assert opened.predict_all([renamed]).caveats == of_run.predict_all([renamed]).caveats
    assert TRAINED in opened.predict_all([renamed]).caveats[0]
    assert opened.predict_all(test_paths[:1]).caveats == ((),)
