"""Unusual images and pairs get the same prediction from the run, a bundle, a graph, MLflow and HTTP."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensemble_kit.arrays import softmax
from ensemble_kit.export.bundle import export_bundle
from ensemble_kit.export.golden_images import sources_of
from ensemble_kit.export.mlflow_loader import MlflowModel
from ensemble_kit.folds import make_folds
from ensemble_kit.images.tiles.build import build_tile_sets
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.spec_string import make_members
from ensemble_kit.run import Run

pytestmark = pytest.mark.slow

SIZE = 12
PAIRS = ("side", "stack", "channels")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _noise(seed: int, *shape: int, top: int = 256) -> Any:
    values = np.random.default_rng(seed).integers(0, top, (*shape[:1], *shape[1:]))
    values.flat[0] = top - 1
    return values


def _rgb16(height: int, width: int) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write."""
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in _noise(7, height, width, 3, top=65536))  # fmt: skip

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")  # fmt: skip


def _odd_images() -> dict[str, bytes]:
    """Image files by name, none of them square 8-bit RGB."""

    def file(image: Image.Image, fmt: str = "PNG", **more: Any) -> bytes:
        out = io.BytesIO()
        image.save(out, format=fmt, **more)
        return out.getvalue()

    def picture(seed: int, n: int, mode: str) -> Image.Image:
        return Image.frombytes(mode, (31, 23), _noise(seed, 23, 31, n).astype(np.uint8).tobytes())

    turned = Image.Exif()
    turned[0x0112] = 6
    deep = _noise(2, 23, 31, top=65536).astype(np.uint16)
    return {
        "grey16.png": file(Image.fromarray(deep)),
        "grey16.tif": file(Image.fromarray(deep), "TIFF"),
        "rgb16.png": _rgb16(23, 31),
        "cmyk.jpg": file(picture(3, 4, "CMYK"), "JPEG"),
        "cmyk.tif": file(picture(4, 4, "CMYK"), "TIFF"),
        "rgba.png": file(picture(5, 4, "RGBA")),
        "la.png": file(picture(6, 2, "LA")),
        "exif.jpg": file(picture(8, 3, "RGB"), "JPEG", exif=turned),
        "exif.png": file(picture(9, 3, "RGB"), exif=turned),
        "grey.png": file(picture(10, 1, "L")),
        "palette.png": file(picture(11, 3, "RGB").quantize(16)),
        "bits.png": file(picture(12, 1, "L").convert("1")),
    }


def _trained(root: Path, manifest: Manifest, specs: list[str] | None = None) -> Run:
    """Members over two folds. The unusual images are the test part."""
    run = Run(root / "run")
    common = f"tiny_cnn:size={SIZE}:pretrained=false:epochs=1:batch_size=16"
    members = (
        make_members([f"{common}{one}" for one in specs])
        if specs
        else [Member("tiny_cnn", image_size=SIZE, pretrained=False, recipe=Recipe(epochs=1))]
    )
    fit_members(members, manifest, make_folds(manifest, 2, seed=0), run, device="cpu")
    return run


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, paint: Callable[..., Path]) -> Any:
    """A run with the unusual images as its test part."""
    root = tmp_path_factory.mktemp("odd")
    paint(root / "data", n_patients=4, n_images=2)
    (root / "data" / "odd").mkdir()
    rows = [
        (p.name, f"{p.parent.name}/{p.name}", p.parent.name, p.name.partition("_")[0], "train")
        for p in sorted((root / "data").glob("*/P*.png"))
    ]
    for i, (name, content) in enumerate(_odd_images().items()):
        (root / "data" / "odd" / name).write_bytes(content)
        rows.append((name, f"odd/{name}", ("benign", "malignant")[i % 2], name, "test"))
    columns = ("sample_id", "path", "label", "group", "split")
    manifest = Manifest.from_records(rows, columns=columns, root=root / "data")
    return _trained(root, manifest), manifest


@pytest.fixture(scope="module", params=PAIRS)
def paired(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    paint: Callable[..., Path],
) -> Any:
    """A run of pairs: one member takes both images, two members take one stain each."""
    root = tmp_path_factory.mktemp(request.param)
    paint(root / "data", n_patients=4, n_images=2)
    rows = []
    for i, path in enumerate(sorted((root / "data").glob("*/*.png"))):
        Image.fromarray(_noise(i, 20, 33, 3).astype(np.uint8)).save(path.with_suffix(".ihc.png"))
        name, where = path.name, path.parent.name
        split = "test" if name.startswith(("P03", "P07")) else "train"
        rows.append(
            (name, f"{where}/{name}", where, name[:3], split, f"{where}/{path.stem}.ihc.png")
        )
    columns = ("sample_id", "path", "label", "group", "split", "pair_path")
    manifest = Manifest.from_records(rows, columns=columns, root=root / "data")
    color = "grayscale" if request.param == "stack" else "rgb"
    manifest = manifest.with_columns(join=request.param, color=color)
    # Tiles that are not square are never transposed.
    tta = ":tta=dihedral" if request.param == "side" else ""
    return _trained(root, manifest, [tta, ":stain=he:color=grayscale", ":stain=ihc:color=lab"]), manifest  # fmt: skip


def _by_http(ensemble: Ensemble, files: list[tuple[Path, ...]]) -> list[Any]:
    """Probabilities from `/predict` and from the Open Inference Protocol."""
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from ensemble_kit.serve.app import make_app

    alone = []
    with TestClient(make_app(ensemble), base_url="http://localhost") as client:  # type: ignore[arg-type]
        for parts in files:
            form = dict(zip(("image", "pair"), [p.read_bytes() for p in parts], strict=False))
            found = client.post("/predict", files=form)
            assert found.status_code == 200, found.text
            alone.append([found.json()["probabilities"][c] for c in ensemble.class_names])
        data = [base64.b64encode(p.read_bytes()).decode() for parts in files for p in parts]
        shape = [len(files)] if len(files[0]) == 1 else [len(files), 2]
        requested = {"name": "image", "datatype": "BYTES", "shape": shape, "data": data}
        found = client.post("/v2/models/ensemble/infer", json={"inputs": [requested]}).json()
    together = np.reshape(found["outputs"][0]["data"], (len(files), -1))
    return [np.array(alone), together]


@pytest.fixture(autouse=True)
def _without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenVINO, which compiles for seconds and reads the same graph."""
    from ensemble_kit.export import graph_files

    monkeypatch.setattr(graph_files, "is_installed", lambda name: name == "onnxruntime")


def _assert_one_prediction(run: Run, manifest: Manifest, out: Path) -> None:
    test = manifest.part("test")
    stored = run.predictions("test")
    want = softmax(stored.logits).mean(axis=1)
    sources, ensemble = sources_of(test), load_ensemble(run, device="cpu")
    assert stored.sample_ids.tolist() == [one.name for one in sources]
    tiles = build_tile_sets(test, ensemble.specs, cache_dir=out / "cache")
    for spec, own in ensemble.tiles_of(sources).items():
        np.testing.assert_array_equal(own.pixels, tiles[spec].pixels)
    exported = export_bundle(run, out / "b", graph="onnx")
    found = {"predict": ensemble.predict_sources(sources).proba}
    for backend in ("torch", "onnxruntime"):
        opened = load_ensemble(out / "b", device="cpu", backend=backend)
        found[backend] = opened.predict_sources(sources).proba
    files = [tuple(test.root / p for p in (one.path, one.pair_path) if p) for one in sources]
    cells = [[p.read_bytes() for p in parts] for parts in files]
    table = pd.DataFrame(cells, columns=["image", "pair"][: len(cells[0])])
    columns = [f"p_{c}" for c in ensemble.class_names]
    found["mlflow"] = MlflowModel(opened).predict(table)[columns].to_numpy()
    found["/predict"], found["infer"] = _by_http(opened, files)
    for name, proba in found.items():
        np.testing.assert_allclose(proba, want, atol=1e-5, err_msg=name)
    # The graph resizes whole images, which can differ by one grey level.
    assert exported.graph_differences["onnxruntime_from_pixels"] < 0.01


def test_unusual_images_get_the_same_prediction_everywhere(odd: Any, tmp_path: Path) -> None:
    _assert_one_prediction(*odd, tmp_path)


def test_pairs_get_the_same_prediction_everywhere(paired: Any, tmp_path: Path) -> None:
    _assert_one_prediction(*paired, tmp_path)
