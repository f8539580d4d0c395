"""Connections that end: uvicorn itself waits forever for the head of a request, or for a reader.

Knows no routes.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_MESSAGE = json.dumps({"error": "No whole request arrived in time. Send it again."}).encode()
TIMED_OUT = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_MESSAGE), _MESSAGE)
)
# A body, its prediction and the answer may take one period each.
PERIODS = 3


class TimedProtocol(H11Protocol):
    """A connection that is closed where nothing comes of it.

    Parameters
    ----------
    seconds : float
        Time for the head of a request; three times as much for a request in all.
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
        """Every `seconds`: close where the same state has lasted too long."""
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
