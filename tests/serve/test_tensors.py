"""Binary tensors of the Open Inference Protocol, checked byte by byte."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from ensemble_kit.inference.ensemble import Ensemble

INFER = "/v2/models/ensemble/infer"


def requested(tensor: bytes, datatype: str, shape: list[int], **more: Any) -> tuple[bytes, int]:
    """A request with one binary tensor, and the length of its JSON."""
    one = {"name": "image", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(tensor)}}  # fmt: skip
    text = json.dumps({"inputs": [one], **more}).encode()
    return text + tensor, len(text)


def send(client: TestClient, body: bytes, length: object) -> Any:
    return client.post(
        INFER, content=body, headers={"Inference-Header-Content-Length": str(length)}
    )


def packed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in texts)


def test_image_files_pixels_and_outputs_can_be_tensors(
    client: TestClient, served: Ensemble, slides: Path, image: bytes
) -> None:
    want = served.predict_proba(slides / "benign" / "P00_0.png")[0]
    files = requested(packed(image, image), "BYTES", [2], parameters={"binary_data_output": True})
    response = send(client, *files)
    assert response.status_code == 200, response.text
    length = int(response.headers["inference-header-content-length"])
    about = json.loads(response.content[:length])
    names = [one["name"] for one in about["outputs"]]
    assert names == ["probabilities", "predicted", "prediction"]
    assert all("data" not in one for one in about["outputs"])
    sizes = [one["parameters"]["binary_data_size"] for one in about["outputs"]]
    assert length + sum(sizes) == len(response.content)
    proba = np.frombuffer(response.content[length : length + sizes[0]], "<f8").reshape(2, 2)
    np.testing.assert_allclose(proba, [want, want], atol=1e-6)
    name = served.predict(slides / "benign" / "P00_0.png")[0].encode()
    assert response.content[length + sizes[0] :].startswith(packed(name, name))

    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))[None]
    response = send(client, *requested(pixels.tobytes(), "UINT8", list(pixels.shape)))
    by_name = {one["name"]: one for one in response.json()["outputs"]}
    np.testing.assert_allclose(by_name["probabilities"]["data"], want, atol=1e-6)


def test_one_output_can_be_a_tensor_and_another_json(client: TestClient, image: bytes) -> None:
    outputs = [{"name": "predicted"}, {"name": "probabilities", "parameters": {"binary_data": True}}]  # fmt: skip
    response = send(client, *requested(packed(image), "BYTES", [1], outputs=outputs))
    length = int(response.headers["inference-header-content-length"])
    probabilities, predicted = json.loads(response.content[:length])["outputs"]
    assert probabilities["parameters"] == {"binary_data_size": 16}
    assert len(predicted["data"]) == 1
    assert len(response.content) == length + 16


def test_nested_and_flat_pixels_give_the_same_probabilities(
    client: TestClient, image: bytes
) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))[None]
    one = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape)}
    flat, nested = (
        client.post(INFER, json={"inputs": [{**one, "data": data}]}).json()["outputs"][0]["data"]
        for data in (pixels.ravel().tolist(), pixels.tolist())
    )
    assert flat == nested


@pytest.mark.parametrize("length", ["", "-1", "0", "1", "99999", "9" * 30, "x", "²"])
def test_a_wrong_length_of_the_json_is_refused(
    client: TestClient, image: bytes, length: str
) -> None:
    body, _ = requested(packed(image), "BYTES", [1])
    headers = [(b"inference-header-content-length", length.encode())]
    response = client.post(INFER, content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize(
    "tensor", [b"\xff\xff\xff\xffab", b"\x01", b"\x05\x00\x00\x00ab", packed(b"ab") + b"\x00\x00"]
)
def test_lengths_that_exceed_a_tensor_are_refused(client: TestClient, tensor: bytes) -> None:
    response = send(client, *requested(tensor, "BYTES", [1]))
    assert response.status_code == 400
    assert response.json()["error"]


def test_a_tensor_with_another_size_than_in_the_json_is_refused(
    client: TestClient, image: bytes
) -> None:
    body, length = requested(packed(image), "BYTES", [1])
    assert send(client, body + b"x", length).status_code == 400
    assert send(client, body[:-1], length).status_code == 400
    assert send(client, *requested(b"abc", "UINT8", [1, 8, 8, 3])).status_code == 400


def test_the_path_can_have_version_1_and_no_other(client: TestClient, image: bytes) -> None:
    about = client.get("/v2/models/ensemble").json()
    assert about["versions"] == ["1"]
    assert client.get("/v2/models/ensemble/versions/1").json() == about
    assert client.get("/v2/models/ensemble/versions/1/ready").json()["ready"] is True
    assert client.get("/v2/models/ensemble/versions/2").status_code == 404
    body, length = requested(packed(image), "BYTES", [1])
    head = {"Inference-Header-Content-Length": str(length)}
    response = client.post("/v2/models/ensemble/versions/1/infer", content=body, headers=head)
    assert response.status_code == 200
