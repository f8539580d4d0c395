"""A job's curve stands on disk from its first epoch on, whether it ends well or not."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from ensemble_kit.members.jobs.events import EpochEnded, Event
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job


@pytest.mark.parametrize("after", [1, 3])
def test_a_job_that_fails_keeps_the_curve_of_its_finished_epochs(
    make_job: Callable[..., Job], after: int
) -> None:
    job, events = make_job(epochs=3), list[EpochEnded]()

    def fail(event: Event) -> None:
        if isinstance(event, EpochEnded):
            events.append(event)
            if len(events) == after:
                raise RuntimeError("lightning")

    with pytest.raises(RuntimeError, match="lightning"):
        run_job(job, fail)
    kept = pd.read_csv(job.folder / "history.csv")
    assert kept["epoch"].tolist() == list(range(after))
    assert kept["train_loss"].tolist() == [e.train_loss for e in events]
    assert set(kept["val_on"]) == {"held-out fold"}
    assert not (job.folder / "fold.json").exists()
    run_job(job)
    whole = pd.read_csv(job.folder / "history.csv")
    assert whole["epoch"].tolist() == [0, 1, 2]
    assert whole["train_loss"].tolist()[:after] == kept["train_loss"].tolist()
