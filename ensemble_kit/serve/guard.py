"""In front of every route: who may ask, how large and how slow a body may be. Pure ASGI."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ensemble_kit.serve.limits import Limits, is_loopback
from ensemble_kit.serve.refusals import RefusedError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
# What a load balancer asks, which has no token.
OPEN = ("/v2/health/live", "/v2/health/ready")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
)


class Guard:
    """Wraps an app.

    Parameters
    ----------
    token : str, optional
        Must be sent as `Authorization: Bearer TOKEN`; without one the server answers only to
        requests for a loopback host, so that no other web page reaches it by a name of its own.
    """

    def __init__(self, app: App, limits: Limits, token: str | None = None) -> None:
        self.app, self.limits, self.token = app, limits, token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            self._check_caller(scope["path"], headers)
            self._check_length(headers)
        except RefusedError as error:
            await _answer(send, error)
            return
        await self.app(scope, self._limited(receive), _with_headers(send))

    def _check_caller(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self.token is None:
            host = headers.get(b"host", b"").decode("latin-1")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if not is_loopback(name):
                raise RefusedError(
                    403, f"The host is '{host[:80]}'. This server answers to localhost only."
                )
            return
        given = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if path not in (*OPEN, "/") and not hmac.compare_digest(given, self.token.encode()):
            raise RefusedError(
                401, "The token is missing or wrong. Send the header Authorization: Bearer TOKEN."
            )

    def _check_length(self, headers: dict[bytes, bytes]) -> None:
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.max_bytes:
            raise self._too_large()

    def _too_large(self) -> RefusedError:
        allowed = f"{self.limits.max_bytes / 1e6:.4g} MB"
        return RefusedError(
            413, f"The request is too large: at most {allowed} are read. Send a smaller image."
        )

    def _limited(self, receive: Receive) -> Receive:
        loop = asyncio.get_running_loop()
        deadline, n_bytes, is_whole = loop.time() + self.limits.seconds, 0, False

        async def limited() -> Message:
            nonlocal n_bytes, is_whole
            if is_whole:  # the app waits for the client to leave
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - loop.time()))
            except TimeoutError:
                raise RefusedError(
                    408,
                    f"The request took longer than {self.limits.seconds:.4g} s to arrive. Send it again.",
                ) from None
            n_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if n_bytes > self.limits.max_bytes:
                raise self._too_large()
            return message

        return limited


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return sent


async def _answer(send: Send, error: RefusedError) -> None:
    # The body was not read, so the connection cannot be used again.
    head = [(b"content-type", b"application/json"), (b"connection", b"close"), *HEADERS]
    await send({"type": "http.response.start", "status": error.status, "headers": head})
    content = json.dumps({"error": error.message}).encode()
    await send({"type": "http.response.body", "body": content})
