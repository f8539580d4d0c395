"""Counts of a server in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

# Upper ends of the histogram bins, in seconds.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counts:
    """Requests by route and status, their time, and images by predicted class."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._classes: Counter[str] = Counter()
        self._buckets = [0] * len(BUCKETS)
        self._seconds, self._n = 0.0, 0

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a finished request."""
        with self._lock:
            self._requests[route, status] += 1
            self._seconds, self._n = self._seconds + seconds, self._n + 1
            for i, end in enumerate(BUCKETS):
                self._buckets[i] += seconds <= end

    def image(self, predicted: str) -> None:
        """Count a predicted image."""
        with self._lock:
            self._classes[predicted] += 1

    def text(self, *, n_batches: int, n_in_work: int) -> str:
        """All counts as text."""
        with self._lock:
            requests = [
                (f'{{route="{_plain(r)}",status="{s}"}}', n)
                for (r, s), n in sorted(self._requests.items())
            ]
            classes = [
                (f'{{predicted="{_plain(c)}"}}', n) for c, n in sorted(self._classes.items())
            ]
            times: list[tuple[str, float]] = [
                (f'_bucket{{le="{end}"}}', n)
                for end, n in zip((*BUCKETS, "+Inf"), (*self._buckets, self._n), strict=True)
            ]
            times += [("_sum", round(self._seconds, 6)), ("_count", self._n)]
        return (
            _metric("requests_total", "counter", "Requests by route and status.", requests)
            + _metric("images_total", "counter", "Predicted images by class.", classes)
            + _metric("request_seconds", "histogram", "Time of a request.", times)
            + _metric("batches_total", "counter", "Predicted batches.", [("", n_batches)])
            + _metric("requests_in_work", "gauge", "Requests in progress.", [("", n_in_work)])
        )


def _metric(name: str, kind: str, about: str, values: Sequence[tuple[str, float]]) -> str:
    name = f"ensemble_kit_{name}"
    lines = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    return "\n".join([*lines, *(f"{name}{rest} {value}" for rest, value in values)]) + "\n"


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
