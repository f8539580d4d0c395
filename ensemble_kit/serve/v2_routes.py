"""Routes of the Open Inference Protocol, version 2: health, metadata and inference."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response

import ensemble_kit
from ensemble_kit.serve.open_inference import binary_outputs, images_of, model_metadata, response
from ensemble_kit.serve.received import Content
from ensemble_kit.serve.refusals import REFUSALS, RefusedError
from ensemble_kit.serve.server import Server
from ensemble_kit.serve.tensors import HEADER, split_body, with_tensors

NAME, VERSION = "ensemble", "1"
_MODEL = "/v2/models/{name}"
_Route = Callable[..., Any]


def add_open_inference(app: FastAPI, server: Server) -> None:
    """Add the routes of the protocol to an app."""
    _add_health(app)

    async def model(name: str, version: str = VERSION) -> dict[str, Any]:
        _check_name(name, version)
        return model_metadata(name, server.ensemble)

    async def ready(name: str, version: str = VERSION) -> dict[str, Any]:
        _check_name(name, version)
        return {"name": name, "ready": True}

    async def infer(request: Request, name: str, version: str = VERSION) -> Response:
        _check_name(name, version)
        body, header = await request.body(), request.headers.get(HEADER)
        with server.in_work():
            requested, images = await asyncio.to_thread(
                _read, body, header, server.limits.max_images
            )
            records = await server.predict(images)
        response_body = response(name, requested, records, server.ensemble.class_names)
        content, n_json = with_tensors(response_body, binary_outputs(requested))
        if n_json is None:
            return Response(content, media_type="application/json")
        return Response(
            content, media_type="application/octet-stream", headers={HEADER: str(n_json)}
        )

    _add(app, "GET", "", model, "Inputs, outputs and classes of the ensemble")
    _add(app, "GET", "/ready", ready, "Whether the ensemble can predict")
    _add(app, "POST", "/infer", infer, "Predict several images", responses=REFUSALS)


def _add(app: FastAPI, method: str, ending: str, route: _Route, summary: str, **about: Any) -> None:
    """Add a route with and without a version in the path."""
    app.add_api_route(_MODEL + ending, route, methods=[method], summary=summary, **about)
    app.add_api_route(
        f"{_MODEL}/versions/{{version}}{ending}", route, methods=[method], include_in_schema=False
    )


def _add_health(app: FastAPI) -> None:
    @app.get("/v2/health/live", summary="Whether the server runs")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="Whether the server can predict")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v2", summary="Name and version of the server")
    async def metadata() -> dict[str, Any]:
        return {
            "name": "ensemble-kit",
            "version": ensemble_kit.__version__,
            "extensions": ["binary_tensor_data"],
        }


def _read(body: bytes, header: str | None, max_images: int) -> tuple[Any, list[Content]]:
    requested, tensor = split_body(body, header)
    return requested, images_of(requested, tensor, max_images)


def _check_name(name: str, version: str) -> None:
    if name != NAME or version != VERSION:
        raise RefusedError(
            404,
            f"There is no model '{name[:80]}' with version '{version[:20]}'. "
            f"Use '{NAME}' with version '{VERSION}'.",
        )
