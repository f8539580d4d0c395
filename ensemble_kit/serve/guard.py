"""Checks before every route: the caller, and the size and duration of the body. Pure ASGI."""

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
# Routes without a token: load balancers have none, and browsers cannot send one with a link.
OPEN = ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
)


class Guard:
    """Wraps an app with checks of the caller and of the body.

    Parameters
    ----------
    token : str, optional
        Required in requests as `Authorization: Bearer TOKEN`. Without a token, the server accepts only
        requests for a loopback host. This protects it against web pages that rebind their host name.
    """

    def __init__(self, app: App, limits: Limits, token: str | None = None) -> None:
        self.app, self.limits, self.token = app, limits, token
        self.n_bytes = 0  # of all bodies in memory

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            self._check_caller(scope["path"], headers)
            self._check_length(headers)
        except RefusedError as error:
            await _respond(send, error)
            return
        body = _Body(self, receive)
        try:
            await self.app(scope, body.receive, _with_headers(send))
        finally:
            self.n_bytes -= body.n_bytes

    def _check_caller(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self.token is None:
            host = headers.get(b"host", b"").decode("latin-1")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if not is_loopback(name):
                raise RefusedError(
                    403,
                    f"The host '{host[:80]}' is not allowed; this server accepts localhost only. "
                    "Open it by its local address.",
                )
            return
        given = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        if path not in OPEN and not hmac.compare_digest(given, self.token.encode()):
            raise RefusedError(
                401, "The token is missing or wrong. Send the header Authorization: Bearer TOKEN."
            )

    def _check_length(self, headers: dict[bytes, bytes]) -> None:
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.limits.max_bytes:
            raise too_large(self.limits)


class _Body:
    """The incoming body of one request, within the limits of its guard."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self._guard, self._receive, self._loop = guard, receive, asyncio.get_running_loop()
        self._deadline, self._is_whole = self._loop.time() + guard.limits.seconds, False
        self.n_bytes = 0

    async def receive(self) -> Message:
        """The next part of the body.

        Raises
        ------
        RefusedError
            408: too slow. 413: too large. 429: the bodies of all requests together are too large.
        """
        if self._is_whole:  # the app waits until the client disconnects
            return await self._receive()
        limits, left = self._guard.limits, max(0.0, self._deadline - self._loop.time())
        try:
            message = await asyncio.wait_for(self._receive(), left)
        except TimeoutError:
            raise RefusedError(
                408,
                f"The request took too long; it must arrive within {limits.seconds:.4g} s. Send it again.",
            ) from None
        n = len(message.get("body", b""))
        self.n_bytes, self._guard.n_bytes = self.n_bytes + n, self._guard.n_bytes + n
        self._is_whole = not message.get("more_body", False)
        if self.n_bytes > limits.max_bytes:
            raise too_large(limits)
        if self._guard.n_bytes > limits.max_bytes * max(1, limits.max_requests):
            raise RefusedError(
                429, "Too many images are arriving. Wait a second, then send it again."
            )
        return message


def too_large(limits: Limits) -> RefusedError:
    """The refusal of a body that is too large."""
    allowed = f"{limits.max_bytes / 1e6:.4g} MB"
    return RefusedError(
        413, f"The request is too large; at most {allowed} are allowed. Send a smaller image."
    )


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return sent


async def _respond(send: Send, error: RefusedError) -> None:
    # The body was not read, so the connection cannot be used again.
    head = [(b"content-type", b"application/json"), (b"connection", b"close"), *HEADERS]
    head += [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
    await send({"type": "http.response.start", "status": error.status, "headers": head})
    content = json.dumps({"error": error.message}).encode()
    await send({"type": "http.response.body", "body": content})
