"""A graph gives PyTorch's probabilities with each backend, for tiles and for whole images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ensemble_kit.combiners import COMBINERS, make_combiner
from ensemble_kit.errors import EnvironmentFault, UsageError
from ensemble_kit.export.bundle import export_bundle
from ensemble_kit.export.combiner_graph import combined
from ensemble_kit.export.pixel_graph import PixelGraph, resized
from ensemble_kit.inference import backends, graphs
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble

pytestmark = pytest.mark.slow

CLI = Callable[..., tuple[int, str]]
NO_GRAPH = ("knora-u", "knora-e", "ola", "lca", "boosting", "feature-mlp", "pooled-mlp", "oracle")


@pytest.fixture(scope="module")
def graphed(stacked: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's `simplex` as a bundle with an ONNX graph."""
    out = tmp_path_factory.mktemp("graphs") / "slides"
    done = export_bundle(stacked.run, out, method="simplex", graph="onnx")
    assert set(done.graph_differences) == {f"{b}{f}" for b in ("onnxruntime", "openvino") for f in ("", "_from_pixels")}  # fmt: skip
    assert max(done.graph_differences.values()) < 1e-4
    return out


@pytest.mark.parametrize("name", [n for n in COMBINERS if n not in NO_GRAPH])
@pytest.mark.parametrize("shape", [(80, 3, 2), (80, 4, 3)])
def test_a_combiner_and_its_graph_give_the_same_probabilities(
    name: str, shape: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(shape[0]) % shape[2]
    logits = rng.normal(size=shape) * 3 + 2.0 * np.eye(shape[2])[labels][:, None]
    fitted = make_combiner(name).fit(logits, labels, np.arange(shape[0]) // 4)
    new = (rng.normal(size=shape) * 4).astype(np.float32)
    found = combined(fitted, torch.from_numpy(new)).numpy()
    np.testing.assert_allclose(found, fitted.predict_proba(new), atol=2e-5)


def test_a_logistic_stacker_with_an_absent_class_and_its_graph_agree() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2 * 2  # class 1 has no image
    logits = rng.normal(size=(60, 3, 3)) + 2.0 * np.eye(3)[labels][:, None]
    fitted = make_combiner("logistic").fit(logits, labels)
    new = rng.normal(size=(20, 3, 3)).astype(np.float32)
    found = combined(fitted, torch.from_numpy(new)).numpy()
    np.testing.assert_allclose(found, fitted.predict_proba(new), atol=2e-5)


@pytest.mark.parametrize("name", ["boosting", "knora-u"])
def test_a_combiner_without_a_graph_is_refused_by_name(name: str) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(60, 3, 2)), np.arange(60) % 2
    fitted = make_combiner(name).fit(logits, labels)
    with pytest.raises(UsageError, match=f"'{name}'.*--format bundle"):
        combined(fitted, torch.zeros(1, 3, 2))


def test_stain_normalisation_of_the_data_is_refused_by_name(ensemble: Ensemble) -> None:
    with pytest.raises(UsageError, match="'macenko'"):
        PixelGraph(ensemble, {"stain_norm": "macenko"})


@pytest.mark.parametrize(
    ("shape", "levels", "share"),
    # Pillow resizes images that are much taller than wide in the other order.
    [((46, 70), 1, 0.01), ((33, 20), 6, 0.3), ((16, 16), 0, 0.0), ((9, 40), 1, 0.01)],
)
def test_the_graph_resizes_like_pillow(shape: tuple[int, int], levels: int, share: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    found = resized(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), 16, 16)[0]
    want = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC))
    difference = np.abs(found.permute(1, 2, 0).numpy() - want)
    assert difference.max() <= levels
    assert (difference > 0).mean() <= share


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_backend_predicts_the_same_as_the_run(
    graphed: Path, ensemble: Ensemble, test_paths: list[Path], backend: str
) -> None:
    opened = load_ensemble(graphed, device="cpu", backend=backend)
    assert opened.backend == backend
    assert backend in repr(opened)
    want, found = ensemble.predict_all(test_paths), opened.predict_all(test_paths)
    np.testing.assert_allclose(found.proba, want.proba, atol=1e-5)
    np.testing.assert_allclose(found.member_proba, want.member_proba, atol=1e-5)
    assert (found.classes.tolist(), found.votes.tolist(), found.decisions) == (
        want.classes.tolist(), want.votes.tolist(), want.decisions,
    )  # fmt: skip


def test_onnx_is_one_file_that_accepts_any_batch_and_size(
    graphed: Path, ensemble: Ensemble
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(graphed / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 31, 3)).astype(np.uint8)
    proba = session.run(["probabilities"], {"pixels": images})[0]
    np.testing.assert_allclose(proba, ensemble.predict_proba(list(images)), atol=1e-3)
    assert [p.name for p in graphed.glob("model*")] == ["model.onnx"]


def test_openvino_files_predict_the_same_as_the_run(
    stacked: Any, tmp_path: Path, test_paths: list[Path]
) -> None:
    export_bundle(stacked.run, tmp_path / "b", method="vote", graph="openvino")
    assert sorted(p.name for p in (tmp_path / "b").glob("model*")) == ["model.bin", "model.xml"]
    with pytest.raises(UsageError, match="onnxruntime"):
        load_ensemble(tmp_path / "b", device="cpu", backend="onnxruntime")
    found = load_ensemble(tmp_path / "b", device="cpu", backend="openvino")
    want = load_ensemble(stacked.run, method="vote", device="cpu")
    np.testing.assert_allclose(found.predict_proba(test_paths), want.predict_proba(test_paths), atol=1e-5)  # fmt: skip


def test_a_graph_with_other_probabilities_is_not_written(
    stacked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensemble_kit.export import pixel_graph

    monkeypatch.setattr(pixel_graph, "combined", lambda _, z: z.softmax(dim=2).amax(dim=1))
    with pytest.raises(EnvironmentFault, match="onnxruntime"):
        export_bundle(stacked.run, tmp_path / "b", method="simplex", graph="onnx")
    assert list(tmp_path.iterdir()) == []


def test_auto_chooses_the_first_installed_backend(
    graphed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = json.loads((graphed / "bundle.json").read_text())["graph"]
    assert backends.choose_backend("auto", about, on_cpu=True) == backends.OF_GRAPH[0]
    assert backends.choose_backend("auto", about, on_cpu=False) == "torch"
    assert backends.choose_backend("auto", None, on_cpu=True) == "torch"
    monkeypatch.setattr(backends, "is_installed", lambda name: False)
    assert backends.choose_backend("auto", about, on_cpu=True) == "torch"
    with pytest.raises(EnvironmentFault, match=r"ensemble-kit\[onnx\]"):
        backends.choose_backend("onnxruntime", about, on_cpu=True)


def test_a_crash_of_the_compiler_is_an_error_of_the_backend(
    graphed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_TRY", "import os; os.abort()")
    about = json.loads((graphed / "bundle.json").read_text())["graph"]
    with pytest.raises(EnvironmentFault, match="openvino") as caught:
        graphs.try_openvino(about, lambda name: (graphed / name).read_bytes())
    assert "code -6" in str(caught.value)


def test_the_commands_write_a_graph_and_predict_with_it(
    cli: CLI, stacked: Any, graphed: Path, slides: Path, tmp_path: Path
) -> None:
    code, printed = cli("export", stacked.run.path, "b", "--method", "vote", "--format", "onnx")
    assert code == 0, printed
    assert "onnxruntime from pixels" in printed
    image = slides / "benign" / "P00_0.png"
    code, printed = cli("predict", image, "--run", graphed, "--backend", "onnxruntime")
    assert code == 0, printed
    assert cli("predict", image, "--run", graphed, "--backend", "onnx")[0] == 2
