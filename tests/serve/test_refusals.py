"""Refused requests and their status. No request ends the server."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from ensemble_kit.errors import UsageError
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.serve.app import make_app
from ensemble_kit.serve.limits import Limits, check_host

TOKEN = "a-token-of-some-length"


def huge_header() -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + head
        + struct.pack(">I", zlib.crc32(head))
        + b"\x00\x00\x01\x00IDATx"
    )


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"no image", 400),
        (b"<html></html>", 400),
        (png(40, 40)[:60], 400),
        (png(4, 4), 400),
        (png(500, 400), 413),
        (huge_header(), 413),
        (bytes(200_000), 413),
    ],
)
def test_invalid_images_are_refused_and_the_server_continues(
    client: TestClient, image: bytes, content: bytes, status: int
) -> None:
    response = client.post("/predict", content=content)
    assert response.status_code == status, response.text
    assert response.json()["error"].endswith(".")
    assert "/tmp" not in response.text
    assert client.post("/predict", content=image).status_code == 200


def test_a_large_body_without_a_length_is_refused(client: TestClient) -> None:
    response = client.post("/predict", content=(bytes(50_000) for _ in range(4)))
    assert response.status_code == 413


def test_a_form_with_many_files_or_without_a_file_is_refused(
    client: TestClient, image: bytes
) -> None:
    many = [("image", (f"{i}.png", image[:9])) for i in range(200)]
    assert client.post("/predict", files=many).status_code == 400
    head = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=b"--x--\r\n", headers=head).status_code == 400
    assert client.post("/predict", content=b"nonsense", headers=head).status_code == 400


def test_a_pair_instead_of_an_image_and_an_image_instead_of_a_pair_are_refused(
    client: TestClient, served: Ensemble, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = {"image": image, "pair": image}
    assert client.post("/predict", files=pair).status_code == 400
    assert client.post("/explain", files=pair).status_code == 400
    monkeypatch.setattr(Ensemble, "takes_pairs", True)
    response = client.post("/predict", files={"image": image})
    assert response.status_code == 400
    assert "'pair'" in response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 90_000,
        b"{}",
        b"null",
        b'{"inputs": [{"datatype": "BYTES", "data": ["%%"]}]}',
        b'{"inputs": [{"datatype": "FP32", "data": [1]}]}',
        b'{"inputs": [{"datatype": "BYTES", "shape": [2], "data": ["AA=="]}]}',
        b'{"inputs": [{"datatype": "UINT8", "shape": [1, 9, 9, 3], "data": [1, 2]}]}',
        b'{"inputs": [{"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 999]}]}',
        b'{"inputs": [{"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 1.5]}]}',
        b'{"inputs": [{"datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [[1], [2, 3]]}]}',
        b'{"inputs": [{"datatype": "UINT8", "shape": null, "data": [1]}]}',
        b'{"inputs": [{"datatype": "BYTES", "parameters": {"binary_data_size": 9}}]}',
    ],
)
def test_invalid_requests_of_the_protocol_are_refused(client: TestClient, body: bytes) -> None:
    response = client.post("/v2/models/ensemble/infer", content=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]


def test_too_many_images_in_one_request_are_refused(client: TestClient) -> None:
    body = {"inputs": [{"datatype": "BYTES", "data": ["AA=="] * 5}]}
    assert client.post("/v2/models/ensemble/infer", json=body).status_code == 413
    pixels = {"datatype": "UINT8", "shape": [5, 8, 8, 3], "data": [7] * (5 * 8 * 8 * 3)}
    assert client.post("/v2/models/ensemble/infer", json={"inputs": [pixels]}).status_code == 413


def test_requests_for_another_host_are_refused(client: TestClient) -> None:
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", ""):
        assert client.get("/", headers={"host": host}).status_code == 403
    for host in ("127.0.0.1:8000", "[::1]:8000", "[::1]", "localhost"):
        assert client.get("/", headers={"host": host}).status_code == 200


def test_a_server_with_a_token_refuses_requests_without_it(served: Ensemble, image: bytes) -> None:
    app: Any = make_app(served, token=TOKEN)
    with TestClient(app, base_url="http://hospital.example") as other:
        assert other.post("/predict", content=image).status_code == 401
        wrong = {"authorization": f"Bearer {TOKEN}x"}
        assert other.post("/predict", content=image, headers=wrong).status_code == 401
        assert other.get("/metrics").status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert other.post("/predict", content=image, headers=right).status_code == 200
        for path in ("/v2/health/ready", "/docs", "/openapi.json"):
            assert other.get(path).status_code == 200
        assert 'id="token"' in other.get("/").text


def test_hosts_that_other_machines_can_reach_need_a_token() -> None:
    check_host("127.0.0.1", None)
    check_host("0.0.0.0", TOKEN)
    for host, token in (("0.0.0.0", None), ("hospital", None), ("127.0.0.1", "short")):
        with pytest.raises(UsageError) as caught:
            check_host(host, token)
        assert caught.value.exit_code == 2


def test_too_many_requests_in_progress_get_429(served: Ensemble, image: bytes) -> None:
    app: Any = make_app(served, Limits(max_requests=0))
    with TestClient(app, base_url="http://localhost") as busy:
        assert busy.post("/predict", content=image).status_code == 429
