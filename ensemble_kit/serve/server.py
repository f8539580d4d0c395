"""The shared state of the routes: an ensemble, its limits, counts and threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ensemble_kit.errors import counted
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.sources import Source
from ensemble_kit.serve.batching import Batcher, Record
from ensemble_kit.serve.counts import Counts
from ensemble_kit.serve.explained import explained
from ensemble_kit.serve.limits import Limits
from ensemble_kit.serve.received import Content, received
from ensemble_kit.serve.refusals import RefusedError


class Server:
    """An ensemble with limits and counts.

    Parameters
    ----------
    ensemble : Ensemble
    limits : Limits

    Attributes
    ----------
    n_in_work : int
        Number of requests in progress or waiting.
    """

    def __init__(self, ensemble: Ensemble, limits: Limits) -> None:
        self.ensemble, self.limits = ensemble, limits
        self.batcher, self.counts = Batcher(ensemble, limits.batch_size), Counts()
        # One image at a time, because gradients need much memory.
        self._explaining = ThreadPoolExecutor(1, "explaining")
        self.n_in_work = 0

    def close(self) -> None:
        """Finish running predictions, and end the threads."""
        self.batcher.close()
        self._explaining.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def in_work(self) -> Iterator[None]:
        """Count a request while it is in progress.

        Raises
        ------
        RefusedError
            429: too many requests are in progress.
        """
        if self.n_in_work >= self.limits.max_requests:
            raise RefusedError(
                429,
                f"{counted(self.n_in_work, 'request', 'is')} in progress; at most "
                f"{self.limits.max_requests} are allowed. Wait a second, then send it again.",
            )
        self.n_in_work += 1
        try:
            yield
        finally:
            self.n_in_work -= 1

    async def predict(self, images: Sequence[Content]) -> list[Record]:
        """A record of each image or pair of H&E and IHC: see `ImagePredictions.records`."""
        sources = await self._received(images)
        records: list[Record] = await self._results(self.batcher.submit(sources))
        for record in records:
            self.counts.image(record["predicted"] or "")
            del record["image"]  # a name of the server
        return records

    async def explain(self, image: Content) -> dict[str, Any]:
        """Maps of the members and the ensemble for one image: see `explained`."""
        (source,) = await self._received([image])
        (found,) = await self._results([self._explaining.submit(explained, self.ensemble, source)])
        return found

    async def _received(self, images: Sequence[Content]) -> list[Source]:
        if self.ensemble.takes_pairs and any(len(one) != 2 for one in images):
            raise RefusedError(
                400,
                "One image was sent; this ensemble predicts pairs of H&E and IHC. Send the IHC image as 'pair'.",
            )
        if not self.ensemble.takes_pairs and any(len(one) != 1 for one in images):
            raise RefusedError(
                400, "A pair was sent; this ensemble predicts single images. Send one image."
            )
        return await asyncio.to_thread(received, images, self.limits.max_pixels)

    async def _results(self, running: Sequence[Future[Any]]) -> list[Any]:
        futures = [asyncio.wrap_future(one) for one in running]
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
        return [one.result() for one in futures]
