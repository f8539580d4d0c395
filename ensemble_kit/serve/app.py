"""The routes of the server: images in, predictions of an `Ensemble` out.

FastAPI application; limits are in `guard` and `limits`, batches in `batching`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

import ensemble_kit
from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.serve.batching import Batcher, Record
from ensemble_kit.serve.counts import Counts
from ensemble_kit.serve.guard import App, Guard, Message, Receive, Send
from ensemble_kit.serve.limits import Limits
from ensemble_kit.serve.open_inference import images_of, model_metadata, response
from ensemble_kit.serve.page import CSP, docs_page, page
from ensemble_kit.serve.received import received
from ensemble_kit.serve.refusals import RefusedError, refusal_of

NAME, PAIR = "ensemble", "pair"
_IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "pair": {"type": "string", "format": "binary"},
                    },
                }
            },
        },
    }
}


class Server:
    """What the routes share: the ensemble, its batcher, counts, and how many requests are in work."""

    def __init__(self, ensemble: Ensemble, limits: Limits) -> None:
        self.ensemble, self.limits = ensemble, limits
        self.batcher, self.counts = Batcher(ensemble, limits.batch_size), Counts()
        self.n_in_work = 0

    @contextlib.contextmanager
    def in_work(self) -> Iterator[None]:
        """Count a request; refuse it where too many are in work.

        Raises
        ------
        RefusedError
            429.
        """
        if self.n_in_work >= self.limits.max_requests:
            raise RefusedError(
                429, f"{self.n_in_work} requests are in work. Wait a second, then send it again."
            )
        self.n_in_work += 1
        try:
            yield
        finally:
            self.n_in_work -= 1

    async def predict(self, images: Sequence[Sequence[bytes]]) -> list[Record]:
        """A record of each image or pair of H&E and IHC; see `ImagePredictions.records`."""
        with received(images, self.limits.max_pixels) as sources:
            futures = [asyncio.wrap_future(one) for one in self.batcher.submit(sources)]
            done, pending = await asyncio.wait(futures, timeout=self.limits.seconds)
            for one in pending:
                one.cancel()
            failed = [error for one in done if (error := one.exception()) is not None]
            if failed:
                raise failed[0]
            if pending:
                raise RefusedError(
                    503,
                    f"The prediction took longer than {self.limits.seconds:.4g} s. Send it again later.",
                )
        records = [one.result() for one in futures]
        for record in records:
            self.counts.image(record["predicted"] or "")
            del record["image"]  # a name of ours
        return records


def make_app(
    ensemble: Ensemble, limits: Limits | None = None, *, token: str | None = None
) -> Counted:
    """The server as an ASGI application.

    Parameters
    ----------
    ensemble : Ensemble
    limits : Limits, optional
    token : str, optional
        Must be sent with each request; see `Guard`.
    """
    server = Server(ensemble, limits or Limits())

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.batcher.close)

    app = FastAPI(
        title="ensemble-kit",
        version=ensemble_kit.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _answer_errors(app)
    _add_predict(app, server)
    _add_open_inference(app, server)
    _add_pages(app, server, needs_token=token is not None)
    return Counted(Guard(app, server.limits, token), server.counts)  # type: ignore[arg-type]


def _add_predict(app: FastAPI, server: Server) -> None:
    @app.post("/predict", openapi_extra=_IMAGE_BODY, summary="Predict one image")
    async def predict(request: Request) -> JSONResponse:
        """The image is the body, or a file of a multipart form; the IHC image of a pair is `pair`."""
        with server.in_work():
            (record,) = await server.predict([await _image_of(request)])
        about = {"method": server.ensemble.method, "caveats": []}
        record["caveats"] = [*record.get("caveats", []), *server.ensemble.notes]
        return JSONResponse({**about, **record})


async def _image_of(request: Request) -> list[bytes]:
    """The image, and the IHC image of a pair."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return [await request.body()]
    try:
        async with request.form(max_files=2, max_fields=8) as form:
            files = [(k, one) for k, one in form.multi_items() if not isinstance(one, str)]
            images = [one for name, one in files if name != PAIR]
            if len(images) != 1:
                raise RefusedError(
                    400,
                    f"The form has {len(images)} images. Send one image as a file, and the IHC image "
                    f"of a pair as '{PAIR}'.",
                )
            return [
                await one.read() for one in (*images, *(o for name, o in files if name == PAIR))
            ]
    except (MultiPartException, HTTPException) as error:
        reason = getattr(error, "message", None) or getattr(error, "detail", "")
        raise RefusedError(
            400, f"The form cannot be read: {reason} Send one image as a file."
        ) from error


def _add_open_inference(app: FastAPI, server: Server) -> None:
    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v2")
    async def metadata() -> dict[str, Any]:
        return {"name": "ensemble-kit", "version": ensemble_kit.__version__, "extensions": []}

    @app.get("/v2/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        _check_name(name)
        return model_metadata(name, server.ensemble)

    @app.get("/v2/models/{name}/ready")
    async def model_ready(name: str) -> dict[str, Any]:
        _check_name(name)
        return {"name": name, "ready": True}

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request) -> JSONResponse:
        _check_name(name)
        if "inference-header-content-length" in request.headers:
            raise RefusedError(400, "Binary tensors are not read. Send the data as JSON.")
        with server.in_work():
            asked = _json(await request.body())
            records = await server.predict(images_of(asked, server.limits.max_images))
        return JSONResponse(response(name, asked, records, server.ensemble.class_names))


def _check_name(name: str) -> None:
    if name != NAME:
        raise RefusedError(404, f"There is no model '{name[:80]}'. The only one is '{NAME}'.")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "The body is not JSON. See /docs.") from None


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
    """Wraps an app: counts each request by its route, status and time."""

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
            # Never what the client wrote: its paths have no end.
            route = getattr(scope.get("route"), "path", "other")
            self.counts.request(route, status, time.monotonic() - start)


def _answer_errors(app: FastAPI) -> None:
    def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RefusedError)
        head = {"connection": "close"} if error.status in (408, 413) else {}
        return JSONResponse({"error": error.message}, error.status, headers=head)

    def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, EnsembleKitError)
        return refused(request, refusal_of(error))

    def left(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(EnsembleKitError, known)
    app.add_exception_handler(ClientDisconnect, left)
