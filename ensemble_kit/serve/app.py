"""The server as an ASGI application: routes for single images, pages and metrics.

Limits are in `guard` and `limits`, batches in `batching`, the Open Inference Protocol in `v2_routes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import ensemble_kit
from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.serve.counts import Counts
from ensemble_kit.serve.guard import App, Guard, Message, Receive, Send
from ensemble_kit.serve.limits import Limits
from ensemble_kit.serve.page import CSP, docs_page, page
from ensemble_kit.serve.received import image_of
from ensemble_kit.serve.refusals import REFUSALS, RefusedError, refusal_of
from ensemble_kit.serve.server import Server
from ensemble_kit.serve.v2_routes import add_open_inference

_BINARY = {"type": "string", "format": "binary"}
_IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": _BINARY, "pair": _BINARY}}
            },
        },
    }
}
_PNG = "data:image/png;base64,..."
_EXPLAINED = {
    "method": "Grad-CAM",
    "class": "malignant",
    "picture": _PNG,
    "maps": [
        {
            "name": "ensemble",
            "kind": "evidence",
            "caption": "p of malignant 0.71, evidence 0.4",
            "overlay": _PNG,
        }
    ],
    "sentence": "All 3 members predict malignant.",
    "caveats": [],
}


def make_app(
    ensemble: Ensemble, limits: Limits | None = None, *, token: str | None = None
) -> Counted:
    """The server as an ASGI application.

    Parameters
    ----------
    ensemble : Ensemble
    limits : Limits, optional
    token : str, optional
        Required in each request: see `Guard`.
    """
    server = Server(ensemble, limits or Limits())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.close)

    app = FastAPI(
        title="ensemble-kit",
        version=ensemble_kit.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _with_error_responses(app)
    _add_images(app, server)
    add_open_inference(app, server)
    _add_pages(app, server, needs_token=token is not None)
    return Counted(Guard(app, server.limits, token), server.counts)  # type: ignore[arg-type]


def _add_images(app: FastAPI, server: Server) -> None:
    about: dict[str, Any] = {"openapi_extra": _IMAGE_BODY, "responses": REFUSALS}

    @app.post("/predict", summary="Predict one image", **about)
    async def predict(request: Request) -> JSONResponse:
        """Send the image as the body or as a file of a multipart form. Name the IHC image of a pair 'pair'."""
        image = await image_of(request)
        with server.in_work():
            (record,) = await server.predict([image])
        caveats = [*record.pop("caveats", []), *server.ensemble.notes]
        return JSONResponse({"method": server.ensemble.method, "caveats": caveats, **record})

    response_body = {200: {"content": {"application/json": {"example": _EXPLAINED}}}}
    about["responses"] = {**REFUSALS, **response_body}

    @app.post("/explain", summary="Explain the prediction of one image", **about)
    async def explain(request: Request) -> JSONResponse:
        """Send the image as for /predict. The response has Grad-CAM maps of the predicted class: one of
        the ensemble, one of each member, and one of their disagreement. Maps are transparent PNGs."""
        image = await image_of(request)
        with server.in_work():
            return JSONResponse(await server.explain(image))


def _add_pages(app: FastAPI, server: Server, *, needs_token: bool) -> None:
    headers = {"content-security-policy": CSP}

    @app.get("/", include_in_schema=False)
    async def start() -> HTMLResponse:
        return HTMLResponse(
            page(server.ensemble, server.limits, needs_token=needs_token), headers=headers
        )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers=headers)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> PlainTextResponse:
        text = server.counts.text(n_batches=server.batcher.n_batches, n_in_work=server.n_in_work)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


class Counted:
    """Wraps an app and counts each request by route, status and time."""

    def __init__(self, app: App, counts: Counts) -> None:
        self.app, self.counts = app, counts

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sent)
        finally:
            # Not the client's path: the number of paths is unlimited.
            route = getattr(scope.get("route"), "path", "other")
            self.counts.request(route, status, time.monotonic() - start)


def _with_error_responses(app: FastAPI) -> None:
    def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RefusedError)
        head = {"connection": "close"} if error.status in (408, 413) else {}
        return JSONResponse({"error": error.message}, error.status, headers=head)

    def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, EnsembleKitError)
        return refused(request, refusal_of(error))

    def unknown(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        requested = f"{request.method} {request.url.path}"[:120]
        message = f"'{requested}': {error.detail}. The routes are listed at /docs."
        return JSONResponse({"error": message}, error.status_code, headers=error.headers)

    def fault(_: Request, __: Exception) -> JSONResponse:
        message = (
            "The server failed; the reason is in its log. Send another image, or tell the operator."
        )
        return JSONResponse({"error": message}, 500)

    def left(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # the client has disconnected

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(EnsembleKitError, known)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(Exception, fault)
