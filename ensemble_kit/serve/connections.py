"""Timeouts of connections. Plain uvicorn waits forever for a request head or for a reader."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_MESSAGE = json.dumps(
    {"error": "The request did not arrive completely in time. Send it again."}
).encode()
TIMED_OUT = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_MESSAGE), _MESSAGE)
)
# One period each for the body, the prediction and the response.
PERIODS = 3


class TimedProtocol(H11Protocol):
    """A connection with timeouts.

    Parameters
    ----------
    seconds : float
        Time for the head of a request. A whole request has three times as long.
    """

    def __init__(self, *args: Any, seconds: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seconds, self._n_periods = seconds, 0
        self._seen: tuple[Any, bool] = (None, True)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(self._seconds, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        """Runs every `seconds`. Closes the connection if it stays in one state for too long."""
        is_idle = self.cycle is None or self.cycle.response_complete
        is_read = not self.transport.get_write_buffer_size()
        lasts = self._seen == (self.cycle, is_idle)
        self._n_periods = self._n_periods + 1 if lasts else 1
        self._seen = (self.cycle, is_idle)
        if self._n_periods > PERIODS:
            self.transport.abort()
            return
        if is_idle and is_read and lasts and not self.transport.is_closing():
            self.transport.write(TIMED_OUT)
            self.transport.close()
        self._timer = self.loop.call_later(self._seconds, self._check)
