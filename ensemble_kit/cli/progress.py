"""Progress of a training run: a live bar on a terminal, plain lines elsewhere.

Draws events; decides nothing.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ensemble_kit.cli.text import duration, printable
from ensemble_kit.members.events import (
    EpochEnded,
    Event,
    JobFailed,
    JobFinished,
    JobSkipped,
    JobStarted,
    Notice,
    TilesProgress,
)

QUIET_SECONDS = 3.0


class ProgressPrinter:
    """A watcher for `fit_members`; used as a context.

    Parameters
    ----------
    work : mapping of member name to relative cost of one of its epochs
    n_jobs : int
    console : rich.console.Console, optional
    """

    def __init__(self, work: dict[str, float], n_jobs: int, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._work, self._n_jobs = work, n_jobs
        self._skipped = 0
        self._said_estimate = False
        self._bar: Progress | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                console=self.console, transient=True,
            )  # fmt: skip
        self._task: int | None = None
        self._last_line = 0.0
        self._tiles: dict[int, float] = {}

    def __enter__(self) -> ProgressPrinter:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        if self._skipped:
            self._say(f"{self._skipped} of {self._n_jobs} jobs were finished before and are kept.")

    def __call__(self, event: Event) -> None:
        match event:
            case TilesProgress():
                self._on_tiles(event)
            case JobSkipped():
                self._skipped += 1
            case JobStarted():
                self._on_start(event)
            case EpochEnded():
                self._on_epoch(event)
            case JobFinished():
                if self._bar is None:
                    return
                self._say(f"{event.member} fold {event.fold}: done in {duration(event.seconds)}")
            case JobFailed():
                self._say(f"{event.member} fold {event.fold}: FAILED: {event.reason}")
            case Notice():
                self._say(event.text)

    def _say(self, text: str) -> None:
        self.console.print(escape(printable(text)), soft_wrap=True)

    def _on_tiles(self, event: TilesProgress) -> None:
        now = time.monotonic()
        last = self._tiles.setdefault(event.image_size, now)
        if event.done == event.total or now - last > QUIET_SECONDS:
            self._tiles[event.image_size] = now
            self._say(f"decoded {event.done} of {event.total} images at {event.image_size} px")

    def _on_start(self, event: JobStarted) -> None:
        title = f"{event.member} fold {event.fold}"
        resumed = f", going on after epoch {event.first_epoch}" if event.first_epoch else ""
        if self._bar:
            if self._task is not None:
                self._bar.remove_task(self._task)  # type: ignore[arg-type]
            self._task = self._bar.add_task(title, total=event.epochs, completed=event.first_epoch)
        else:
            self._say(f"{title} on {event.device} in {event.precision}{resumed}")

    def _on_epoch(self, event: EpochEnded) -> None:
        line = (
            f"{event.member} fold {event.fold} epoch {event.epoch + 1}/{event.epochs}: "
            f"train loss {event.train_loss:.3f}, {event.val_on} loss {event.val_log_loss:.3f} "
            f"accuracy {event.val_accuracy:.3f}, {event.images_per_second:.0f} images/s"
        )
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=1, description=escape(line))  # type: ignore[arg-type]
        elif event.epoch + 1 == event.epochs or time.monotonic() - self._last_line > QUIET_SECONDS:
            self._last_line = time.monotonic()
            self._say(line)
        if not self._said_estimate:
            self._said_estimate = True
            self._say_estimate(event)

    def _say_estimate(self, event: EpochEnded) -> None:
        per_unit = event.seconds / self._work[event.member]
        jobs_left = self._n_jobs - self._skipped
        total = sum(self._work.values()) / len(self._work) * per_unit * event.epochs * jobs_left
        self._say(
            f"About {duration(total)} for all {jobs_left} jobs, if time goes with multiply-accumulates; "
            "the first epoch includes warm-up."
        )
