"""NVIDIA's client of the Open Inference Protocol against a running server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.serve.app import make_app

triton = pytest.importorskip("tritonclient.http")
TOKEN = "a-token-of-some-length"


def test_the_triton_client_gets_the_predictions(
    served: Ensemble,
    slides: Path,
    image: bytes,
    running: Callable[[Any], AbstractContextManager[int]],
) -> None:
    path = slides / "benign" / "P00_0.png"
    want, name = served.predict_proba(path)[0], served.predict(path)[0]
    with running(make_app(served, token=TOKEN)) as port:
        client = triton.InferenceServerClient(f"127.0.0.1:{port}")

        def headers() -> dict[str, str]:
            """A new dict for each call, because the client changes it."""
            return {"Authorization": f"Bearer {TOKEN}"}

        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("ensemble", headers=headers())
        assert client.get_server_metadata(headers=headers())["name"] == "ensemble-kit"
        about = client.get_model_metadata("ensemble", model_version="1", headers=headers())
        assert json.loads(about["parameters"]["class_names"]) == list(served.class_names)
        (given,) = about["inputs"]

        files = triton.InferInput(given["name"], [2], given["datatype"])
        files.set_data_from_numpy(np.array([image, image], dtype=np.object_))
        found = client.infer("ensemble", [files], headers=headers(), request_id="7")
        np.testing.assert_allclose(found.as_numpy("probabilities"), [want, want], atol=1e-6)
        assert found.as_numpy("predicted").tolist() == [name.encode()] * 2
        assert json.loads(found.as_numpy("prediction")[0])["predicted"] == name
        assert found.get_response()["id"] == "7"

        text = triton.InferInput("image", [1], "BYTES")
        data = np.array([base64.b64encode(image).decode()], dtype=np.object_)
        text.set_data_from_numpy(data, binary_data=False)
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=False)]
        found = client.infer("ensemble", [text], outputs=wanted, headers=headers())
        np.testing.assert_allclose(found.as_numpy("probabilities"), [want], atol=1e-6)

        with pytest.raises(triton.InferenceServerException, match="Authorization"):
            client.infer("ensemble", [files])
        client.close()
