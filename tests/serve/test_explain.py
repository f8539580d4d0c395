"""Maps over HTTP equal the maps of `explain`. Invalid requests are refused."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps, colors
from PIL import Image
from starlette.testclient import TestClient

from ensemble_kit.explanation.ledger import sentence
from ensemble_kit.explanation.panes import panes_of
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.image_caveats import TRAINED
from ensemble_kit.plots.explanation import KINDS, overlay
from ensemble_kit.serve.app import make_app
from ensemble_kit.serve.limits import Limits
from ensemble_kit.serve.page import page


def pixels_of(address: str) -> Any:
    head, _, content = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize("as_form", [False, True])
def test_maps_over_http_equal_those_of_explain(
    client: TestClient, served: Ensemble, slides: Path, image: bytes, as_form: bool
) -> None:
    sent: dict[str, Any] = {"files": {"image": ("x.png", image)}} if as_form else {"content": image}
    response = client.post("/explain", **sent)
    assert response.status_code == 200, response.text
    found, want = response.json(), served.explain(slides / "benign" / "P00_0.png")
    assert found["class"] == want.class_names[0]
    assert found["sentence"] == sentence(want, 0)
    np.testing.assert_array_equal(pixels_of(found["picture"]), want.pictures[0])
    panes = {one.title: one for one in panes_of(want, 0, {})}
    names = [one["name"] for one in found["maps"]]
    assert names == ["ensemble", *served.member_names, "disagreement"]
    for one in found["maps"]:
        assert set(one) == {"name", "kind", "caption", "overlay"}
        np.testing.assert_array_equal(pixels_of(one["overlay"]), overlay(panes[one["name"]]))
    assert any("4 x 4" in one for one in found["caveats"])
    assert TRAINED in found["caveats"]


def test_an_overlay_is_transparent_without_evidence_and_opaque_at_the_peak(
    served: Ensemble, slides: Path
) -> None:
    found = served.explain(slides / "benign" / "P00_0.png")
    for pane in panes_of(found, 0, {}):
        alpha, top = overlay(pane)[..., 3], KINDS[pane.kind][2]
        if pane.kind == "evidence" and pane.relative.max() == 1:
            assert alpha[pane.relative == 1].min() == 255
        np.testing.assert_array_equal(alpha == 38, pane.relative / top < 0.001)


@pytest.mark.parametrize(("content", "status"), [(b"", 400), (b"text", 400), (bytes(200_000), 413)])
def test_invalid_images_are_refused(client: TestClient, content: bytes, status: int) -> None:
    response = client.post("/explain", content=content)
    assert response.status_code == status
    assert response.json()["error"]


def test_explanations_count_as_requests_in_progress(served: Ensemble, image: bytes) -> None:
    app: Any = make_app(served, Limits(max_requests=0))
    with TestClient(app, base_url="http://localhost") as busy:
        assert busy.post("/explain", content=image).status_code == 429


def test_an_explanation_that_takes_too_long_gets_503_and_the_server_continues(
    served: Ensemble, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from ensemble_kit.serve import server

    go = threading.Event()

    def slow_explained(*_: Any) -> dict[str, Any]:
        assert go.wait(30)
        return {"class": "benign"}

    monkeypatch.setattr(server, "explained", slow_explained)
    app: Any = make_app(served, Limits(seconds=0.2))
    with TestClient(app, base_url="http://localhost") as slow:
        assert slow.post("/explain", content=image).status_code == 503
        go.set()
        assert slow.post("/explain", content=image).json() == {"class": "benign"}


def test_a_graph_has_no_maps_and_no_button_on_the_page(
    served: Ensemble, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 'id="explain"' in page(served, Limits(), needs_token=False)
    monkeypatch.setattr(served, "_members", ())
    assert 'id="explain"' not in page(served, Limits(), needs_token=False)
    app: Any = make_app(served)
    with TestClient(app, base_url="http://localhost") as graph:
        response = graph.post("/explain", content=image)
    assert response.status_code == 400
    assert "--backend torch" in response.json()["error"]


def test_the_colour_scales_of_the_page_equal_those_of_the_maps(client: TestClient) -> None:
    text = client.get("/").text
    for name in (KINDS["evidence"][0], KINDS["spread"][0]):
        steps = ",".join(colors.to_hex(colormaps[name](i / 6)) for i in range(7))
        assert f"linear-gradient(90deg,{steps})" in text


def test_the_openapi_schema_describes_the_route(client: TestClient) -> None:
    about = client.get("/openapi.json").json()["paths"]["/explain"]["post"]
    assert set(about["requestBody"]["content"]) == {"application/octet-stream", "multipart/form-data"}  # fmt: skip
    example = about["responses"]["200"]["content"]["application/json"]["example"]
    assert {"400", "401", "408", "413", "429", "503"} <= set(about["responses"])
    assert set(example) == {"method", "class", "picture", "maps", "sentence", "caveats"}
    assert set(example["maps"][0]) == {"name", "kind", "caption", "overlay"}
