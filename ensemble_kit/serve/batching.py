"""Batching: one thread predicts the images of concurrent requests together.

A batch is the images that arrived while the last batch was predicted.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.sources import Source

Record = dict[str, Any]
_Item = tuple[Source, "Future[Record]"]


class Batcher:
    """Predicts images that any thread submits.

    Parameters
    ----------
    batch_size : int
        Largest number of images predicted together. 1 disables batching.
    """

    def __init__(self, ensemble: Ensemble, batch_size: int) -> None:
        self._ensemble, self._batch_size = ensemble, batch_size
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self.n_batches = 0
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, sources: Sequence[Source]) -> list[Future[Record]]:
        """The future record of each image. The future of an unreadable image holds its error."""
        futures: list[Future[Record]] = [Future() for _ in sources]
        for item in zip(sources, futures, strict=True):
            self._waiting.put(item)
        return futures

    def close(self) -> None:
        """Predict all waiting images, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            items, is_last = self._taken(first)
            running = [item for item in items if item[1].set_running_or_notify_cancel()]
            if running:
                self._predict(running)
            if is_last:
                return

    def _taken(self, first: _Item) -> tuple[list[_Item], bool]:
        items = [first]
        while len(items) < self._batch_size:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return items, True
            items.append(item)
        return items, False

    def _predict(self, items: Sequence[_Item]) -> None:
        self.n_batches += 1
        try:
            found = _records(self._ensemble, [source for source, _ in items])
        except Exception as error:  # passed to every waiting request
            for _, future in items:
                future.set_exception(error)
            return
        for (_, future), one in zip(items, found, strict=True):
            if isinstance(one, EnsembleKitError):
                future.set_exception(one)
            else:
                future.set_result(one)


def _records(ensemble: Ensemble, sources: Sequence[Source]) -> list[Record | EnsembleKitError]:
    out: list[Record | EnsembleKitError] = []
    for block in ensemble.predict_blocks(sources):
        good = dict(zip(block.good.tolist(), block.predictions.records(), strict=True))
        out += [good[i] if i in good else block.faults[i] for i in range(len(block.sources))]
    return out
