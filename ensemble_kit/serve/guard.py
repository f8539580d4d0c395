"""In front of every route: who may ask, how large and how slow bodies may be. Pure ASGI."""

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
# Load balancers have no token, and browsers cannot send one with a link.
OPEN = ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")
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
        self.n_bytes = 0  # of all bodies that are in memory now

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
                    403, f"The host is '{host[:80]}'. This server answers to localhost only."
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
    """The body of one request as it arrives, within the limits of its guard."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self._guard, self._receive, self._loop = guard, receive, asyncio.get_running_loop()
        self._deadline, self._is_whole = self._loop.time() + guard.limits.seconds, False
        self.n_bytes = 0

    async def receive(self) -> Message:
        """The next part.

        Raises
        ------
        RefusedError
            408, 413, or 429 where the bodies of all requests together are too large.
        """
        if self._is_whole:  # the app waits for the client to leave
            return await self._receive()
        limits, left = self._guard.limits, max(0.0, self._deadline - self._loop.time())
        try:
            message = await asyncio.wait_for(self._receive(), left)
        except TimeoutError:
            raise RefusedError(
                408,
                f"The request took longer than {limits.seconds:.4g} s to arrive. Send it again.",
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
    """The refusal of a body that is larger than allowed."""
    allowed = f"{limits.max_bytes / 1e6:.4g} MB"
    return RefusedError(
        413, f"The request is too large: at most {allowed} are read. Send a smaller image."
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
