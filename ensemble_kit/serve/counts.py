"""Counts of a server in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter

# Upper ends of the histogram of seconds.
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
        """One request has ended."""
        with self._lock:
            self._requests[route, status] += 1
            self._seconds, self._n = self._seconds + seconds, self._n + 1
            for i, end in enumerate(BUCKETS):
                self._buckets[i] += seconds <= end

    def image(self, predicted: str) -> None:
        """One image was predicted."""
        with self._lock:
            self._classes[predicted] += 1

    def text(self, *, n_batches: int, n_in_work: int) -> str:
        """All counts."""
        with self._lock:
            lines = ["# TYPE ensemble_kit_requests_total counter"]
            lines += [
                f'ensemble_kit_requests_total{{route="{_plain(r)}",status="{s}"}} {n}'
                for (r, s), n in sorted(self._requests.items())
            ]
            lines.append("# TYPE ensemble_kit_images_total counter")
            lines += [
                f'ensemble_kit_images_total{{predicted="{_plain(c)}"}} {n}'
                for c, n in sorted(self._classes.items())
            ]
            lines.append("# TYPE ensemble_kit_request_seconds histogram")
            lines += [
                f'ensemble_kit_request_seconds_bucket{{le="{end}"}} {n}'
                for end, n in zip((*BUCKETS, "+Inf"), (*self._buckets, self._n), strict=True)
            ]
            lines += [
                f"ensemble_kit_request_seconds_sum {self._seconds:.6f}",
                f"ensemble_kit_request_seconds_count {self._n}",
                "# TYPE ensemble_kit_batches_total counter",
                f"ensemble_kit_batches_total {n_batches}",
                "# TYPE ensemble_kit_requests_in_work gauge",
                f"ensemble_kit_requests_in_work {n_in_work}",
            ]
        return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
