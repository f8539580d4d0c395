"""Every route returns the predictions of the ensemble."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.image_caveats import TRAINED
from ensemble_kit.inference.sources import as_sources
from ensemble_kit.serve.batching import Batcher


def same(got: dict[str, Any], served: Ensemble, path: Path) -> None:
    (want,) = served.predict_all(path).records()
    for key in ("predicted", "votes", "set", "decision"):
        assert got[key] == want[key]
    assert got["probabilities"] == pytest.approx(want["probabilities"], abs=1e-6)


def test_raw_and_multipart_images_get_the_ensembles_prediction(
    client: TestClient, served: Ensemble, slides: Path, image: bytes
) -> None:
    path = slides / "benign" / "P00_0.png"
    raw = client.post("/predict", content=image)
    form = client.post("/predict", files={"image": ("../../etc/passwd", image)})
    for response in (raw, form):
        assert response.status_code == 200, response.text
        same(response.json(), served, path)
        assert "passwd" not in response.text
    assert TRAINED in raw.json()["caveats"]


@pytest.mark.parametrize("kind", ["16-bit", "CMYK", "alpha", "EXIF", "grey"])
def test_images_of_every_kind_get_the_prediction_of_their_file(
    client: TestClient, served: Ensemble, tmp_path: Path, kind: str
) -> None:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8))
    path, exif = tmp_path / "x.png", Image.Exif()
    exif[0x0112] = 6
    if kind == "16-bit":
        deep = rng.integers(0, 65535, (20, 30)).astype(np.uint16)
        deep[0, 0] = 65535
        Image.fromarray(deep).save(path)
    elif kind == "CMYK":
        path = tmp_path / "x.tif"
        rgb.convert("CMYK").save(path)
    elif kind == "EXIF":
        path = tmp_path / "x.jpg"
        rgb.save(path, exif=exif)
    elif kind == "alpha":
        rgb.putalpha(90)
        rgb.save(path)
    else:
        rgb.convert("L").save(path)
    response = client.post("/predict", content=path.read_bytes())
    assert response.status_code == 200, response.text
    same(response.json(), served, path)


def test_the_open_inference_protocol_returns_the_predictions(
    client: TestClient, served: Ensemble, slides: Path, image: bytes
) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "ensemble-kit"
    about = client.get("/v2/models/ensemble").json()
    assert json.loads(about["parameters"]["class_names"]) == list(served.class_names)
    assert client.get("/v2/models/ensemble/ready").json()["ready"] is True
    assert client.get("/v2/models/other").status_code == 404
    data = base64.b64encode(image).decode()
    requested = {"id": "7", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [data, data]}]}  # fmt: skip
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))[None]
    arrays = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}],
              "outputs": [{"name": "probabilities"}]}  # fmt: skip
    want = served.predict_proba(slides / "benign" / "P00_0.png")[0]
    found = client.post("/v2/models/ensemble/infer", json=requested).json()
    assert (found["id"], found["model_name"]) == ("7", "ensemble")
    by_name = {one["name"]: one for one in found["outputs"]}
    assert by_name["probabilities"]["shape"] == [2, 2]
    np.testing.assert_allclose(by_name["probabilities"]["data"], [*want, *want], atol=1e-6)
    same(json.loads(by_name["prediction"]["data"][0]), served, slides / "benign" / "P00_0.png")
    found = client.post("/v2/models/ensemble/infer", json=arrays).json()
    assert [one["name"] for one in found["outputs"]] == ["probabilities"]
    np.testing.assert_allclose(found["outputs"][0]["data"], want, atol=1e-6)


def test_waiting_images_are_predicted_in_one_batch_and_get_their_own_results(
    served: Ensemble, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(slides.glob("*/P0[0-3]_*.png"))[:9]
    begun, go, sizes = threading.Event(), threading.Event(), []
    real = served.predict_blocks

    def slow_blocks(sources: Any, start: int = 0) -> Any:
        sizes.append(len(sources))
        begun.set()
        assert go.wait(30)
        return real(sources, start)

    monkeypatch.setattr(served, "predict_blocks", slow_blocks)
    batcher = Batcher(served, 6)
    futures = batcher.submit(as_sources(paths[:1]))
    assert begun.wait(30)
    futures += batcher.submit(as_sources(paths[1:]))
    go.set()
    records = [one.result(30) for one in futures]
    batcher.close()
    assert sizes == [1, 6, 2]
    for one, path in zip(records, paths, strict=True):
        same(one, served, path)


def test_pages_have_no_external_resources(client: TestClient) -> None:
    for path in ("/", "/docs"):
        response = client.get(path)
        assert response.status_code == 200
        assert "http://" not in response.text.replace("http://127.0.0.1:8000", "")
        assert "https://" not in response.text
        assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "not a medical device" in client.get("/").text
    assert "/v2/models/{name}/infer" in client.get("/docs").text
    assert "/predict" in client.get("/openapi.json").json()["paths"]
