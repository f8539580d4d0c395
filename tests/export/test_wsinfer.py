"""A WSInfer model gives the ensemble's probabilities after a softmax, for patches of any size."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensemble_kit.checked import read_checked
from ensemble_kit.errors import DataError, EnvironmentFault, UsageError
from ensemble_kit.export import pixel_graph, wsinfer
from ensemble_kit.export.bundle import export_bundle
from ensemble_kit.export.wsinfer import Patch, refuse_wsinfer, script_bytes, write_wsinfer
from ensemble_kit.files import digest_file
from ensemble_kit.inference.ensemble import Ensemble

CLI = Callable[..., tuple[int, str]]
# The required keys of version 1.0 of the schema of WSInfer's model zoo, and their types.
SCHEMA = {
    "spec_version": str, "architecture": str, "num_classes": int, "patch_size_pixels": int,
    "spacing_um_px": float, "class_names": list, "transform": list,
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(stacked: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wsinfer") / "b"
    export_bundle(stacked.run, out, method="simplex")
    return out


def as_wsinfer(folder: Path, patches: list[Any]) -> Any:
    """Probabilities computed in the same way as WSInfer: the config's transforms, then a softmax."""
    config = json.loads((folder / "config.json").read_text())
    assert [one["name"] for one in config["transform"]] == ["Resize", "ToTensor"]
    side = config["transform"][0]["arguments"]["size"]
    tensors = [
        torch.from_numpy(np.array(Image.fromarray(p).resize((side, side)))).permute(2, 0, 1) / 255
        for p in patches
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.load(str(folder / "torchscript_model.pt"))
    return model(torch.stack(tensors)).softmax(dim=1).detach().numpy()


def test_the_model_gives_the_ensembles_probabilities_and_a_valid_config(
    cli: CLI, stacked: Any, ensemble: Ensemble, test_paths: list[Path], tmp_path: Path
) -> None:
    code, printed = cli("export", stacked.run.path, "w", "--method", "simplex", "--format", "wsinfer",
                     "--um-per-pixel", 0.5)  # fmt: skip
    assert code == 0, printed
    assert wsinfer.DEPRECATED in printed
    assert [one.name for one in tmp_path.iterdir()] == ["w"]
    folder = tmp_path / "w"
    patches = [np.asarray(Image.open(path)) for path in test_paths]
    found = as_wsinfer(folder, patches)
    np.testing.assert_allclose(found, ensemble.predict_proba(test_paths), atol=1e-4)
    config = json.loads((folder / "config.json").read_text())
    assert {key: type(value) for key, value in config.items()} == SCHEMA
    assert config["class_names"] == list(ensemble.class_names)
    assert (config["patch_size_pixels"], config["spacing_um_px"]) == (16, 0.5)
    card = (folder / "README.md").read_text()
    assert card.count("## How to use it") == 1
    assert "wsinfer run" in card
    assert "load_ensemble" not in card
    assert "## Data and split" in card
    record = read_checked(folder / "ensemble-kit.json", advice="")
    assert record["largest_difference"]["torchscript"] <= 1e-4
    digest = record["files"]["torchscript_model.pt"]["sha256"]
    assert digest == digest_file(folder / "torchscript_model.pt")


def test_patches_of_another_size_are_resized_in_the_model(
    stacked: Any, bundle: Path, ensemble: Ensemble, test_paths: list[Path], tmp_path: Path
) -> None:
    done = write_wsinfer(stacked.run, bundle, tmp_path / "w", Patch(0.25, 40))
    assert done.config["patch_size_pixels"] == 40
    patches = [np.asarray(Image.open(path).resize((40, 40))) for path in test_paths]
    found = as_wsinfer(tmp_path / "w", patches)
    np.testing.assert_allclose(found, ensemble.predict_proba(patches), atol=0.01)
    assert done.differences["torchscript"] <= 1e-4


@pytest.mark.parametrize("color", ["rgb", "lab"])
def test_a_model_can_be_moved_to_another_device(
    ensemble: Ensemble, color: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for member in ensemble.members:
        for one in member.by_fold.values():
            own = one.member.model_copy(update={"color": color})
            monkeypatch.setitem(vars(one), "member", own)
    content = script_bytes(ensemble, {"color": "grayscale"}, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.load(io.BytesIO(content)).inlined_graph
    # WSInfer moves parameters but not constants, so constants must follow the images by `type_as`.
    assert mixed(graph) == []


def mixed(graph: Any) -> list[str]:
    """Operations with both a constant array and a tensor that depends on images or weights."""
    constant, found = set(), []
    for node in graph.nodes():
        if node.kind() == "prim::Constant":
            is_array = node.hasAttribute("value") and node.kindOf("value") == "t" and node.t("value").dim()  # fmt: skip
            constant |= {node.output().debugName()} if is_array else set()
            continue
        names = {one.debugName() for one in node.inputs() if "Tensor" in str(one.type())}
        if node.kind() == "aten::type_as" or not names & constant:
            continue
        if names <= constant:
            constant |= {one.debugName() for one in node.outputs()}
        else:
            found.append(node.kind())
    assert constant
    return found


def test_a_model_with_other_probabilities_is_not_written(
    stacked: Any, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_graph, "combined", lambda _, z: z.softmax(dim=2).amax(dim=1))
    with pytest.raises(EnvironmentFault, match="TorchScript"):
        write_wsinfer(stacked.run, bundle, tmp_path / "w", Patch(0.5))
    assert list(tmp_path.iterdir()) == []


def test_invalid_paths_patches_and_pairs_are_refused(
    cli: CLI, stacked: Any, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stacked.run.path
    assert cli("export", run, "w", "--format", "wsinfer")[0] == 2
    assert cli("export", run, "w", "--um-per-pixel", 0.5)[0] == 2
    (tmp_path / "thesis").mkdir()
    for out, patch, error in (
        ("thesis", Patch(0.5), DataError),
        ("w.zip", Patch(0.5), DataError),
        ("w", Patch(0.0), UsageError),
        ("w", Patch(float("nan")), UsageError),
        ("w", Patch(0.5, 0), UsageError),
    ):
        with pytest.raises(error):
            refuse_wsinfer(stacked.run, tmp_path / out, patch)
    monkeypatch.setattr(wsinfer, "data_settings_of", lambda _: {"join": "side"})
    with pytest.raises(UsageError, match="'side'"):
        write_wsinfer(stacked.run, bundle, tmp_path / "w", Patch(0.5))


def test_images_that_are_not_square_need_a_patch_size_and_get_a_note() -> None:
    images = [np.zeros((20, 30, 3), np.uint8)] * 2
    with pytest.raises(UsageError, match="30 x 20"):
        wsinfer._side_of(images)
    assert "30 x 20" in wsinfer._notes(images)[0]
    assert wsinfer._notes([np.zeros((20, 20, 3), np.uint8)]) == []
