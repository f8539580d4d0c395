"""The history of a job is written after each epoch, also if the job fails."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from ensemble_kit.members.jobs.events import EpochEnded, Event
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.run_job import run_job


@pytest.mark.parametrize("after", [1, 3])
def test_a_failed_job_has_the_history_of_its_finished_epochs(
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
    history = pd.read_csv(job.folder / "history.csv")
    assert history["epoch"].tolist() == list(range(after))
    assert history["train_loss"].tolist() == [e.train_loss for e in events]
    assert set(history["val_on"]) == {"held-out fold"}
    assert not (job.folder / "fold.json").exists()
    run_job(job)
    whole = pd.read_csv(job.folder / "history.csv")
    assert whole["epoch"].tolist() == [0, 1, 2]
    assert whole["train_loss"].tolist()[:after] == history["train_loss"].tolist()
