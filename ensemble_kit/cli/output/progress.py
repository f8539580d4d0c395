"""Progress of a training: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from ensemble_kit.cli.output.text import duration, printable
from ensemble_kit.cli.output.time_left import Remaining
from ensemble_kit.errors import counted
from ensemble_kit.members.jobs.events import (
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
    """A listener for `fit_members`; used as a context.

    Parameters
    ----------
    work : mapping of member name to relative cost of one of its jobs
    n_jobs : mapping of member name to the number of its jobs
    estimates : bool
        Whether to estimate the remaining time; not possible for jobs in a queue.
    console : rich.console.Console, optional
    """

    def __init__(
        self,
        work: Mapping[str, float],
        n_jobs: Mapping[str, int],
        *,
        estimates: bool = True,
        console: Console | None = None,
    ) -> None:
        self.console = console or Console(highlight=False)
        self._n_jobs, self._skipped = sum(n_jobs.values()), 0
        self._rest = Remaining(work, n_jobs) if estimates else None
        self._has_printed_estimate = False
        self._bar: Progress | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=10), MofNCompleteColumn(), TimeElapsedColumn(),
                console=self.console, transient=True,
            )  # fmt: skip
        self._tasks: dict[tuple[str, int | str], TaskID] = {}
        self._all: TaskID | None = None
        self._last_line = 0.0
        self._tiles: dict[int, float] = {}

    def __enter__(self) -> ProgressPrinter:
        if self._bar:
            self._bar.start()
            self._all = self._bar.add_task("jobs", total=self._n_jobs)
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
            self._print(f"{self._skipped} of {self._n_jobs} jobs are already finished and skipped.")

    def __call__(self, event: Event) -> None:
        if self._rest:
            self._rest.see(event)
        match event:
            case TilesProgress():
                self._on_tiles(event)
            case JobSkipped():
                self._skipped += 1
                self._end(event.member, event.fold)
            case JobStarted():
                self._on_start(event)
            case EpochEnded():
                self._on_epoch(event)
            case JobFinished():
                self._end(event.member, event.fold)
                took = f"done in {duration(event.seconds)}"
                self._print(f"{event.member} fold {event.fold}: {took}{self._left('; ')}")
            case JobFailed():
                self._end(event.member, event.fold)
                self._print(f"{event.member} fold {event.fold}: FAILED: {event.reason}")
            case Notice():
                self._print(event.text)

    def _print(self, text: str) -> None:
        self.console.print(escape(printable(text)), soft_wrap=True)

    def _on_tiles(self, event: TilesProgress) -> None:
        now = time.monotonic()
        last = self._tiles.setdefault(event.image_size, now)
        if event.done == event.total or now - last > QUIET_SECONDS:
            self._tiles[event.image_size] = now
            self._print(f"decoded {event.done} of {event.total} images at {event.image_size} px")

    def _on_start(self, event: JobStarted) -> None:
        title = f"{event.member} fold {event.fold}"
        resumed = f", continuing after epoch {event.first_epoch}" if event.first_epoch else ""
        if self._bar:
            key = (event.member, event.fold)
            self._tasks[key] = self._bar.add_task(
                title, total=event.epochs, completed=event.first_epoch
            )
        if self._bar is None or resumed:
            self._print(f"{title} on {event.device} in {event.precision}{resumed}")

    def _on_epoch(self, event: EpochEnded) -> None:
        title = f"{event.member} fold {event.fold}"
        line = (
            f"{title} epoch {event.epoch + 1}/{event.epochs}: "
            f"train loss {event.train_loss:.3f}, {event.val_on} loss {event.val_log_loss:.3f} "
            f"accuracy {event.val_accuracy:.3f}, {event.images_per_second:.0f} images/s"
        )
        task = self._tasks.get((event.member, event.fold))
        if self._bar and task is not None:
            # Shorter than the line: with the bar it must fit 100 columns.
            values = (
                f"{title}: loss {event.train_loss:.3f}, {event.val_on} {event.val_log_loss:.3f}, "
                f"accuracy {event.val_accuracy:.3f}"
            )
            self._bar.update(task, completed=event.epoch + 1, description=escape(values))
        elif event.epoch + 1 == event.epochs or time.monotonic() - self._last_line > QUIET_SECONDS:
            self._last_line = time.monotonic()
            self._print(line)
        self._print_rest()

    def _end(self, member: str, fold: int | str) -> None:
        if self._bar and self._all is not None:
            self._bar.advance(self._all)
            if (task := self._tasks.pop((member, fold), None)) is not None:
                self._bar.remove_task(task)

    def _left(self, before: str) -> str:
        """The remaining time in words; empty if it is not known."""
        seconds = self._rest.seconds() if self._rest and self._rest.jobs else None
        return "" if seconds is None else f"{before}about {duration(seconds)} left"

    def _print_rest(self) -> None:
        """Show the remaining time at the bar, and print the first estimate."""
        if self._bar and self._all is not None:
            self._bar.update(self._all, description=f"jobs{self._left(', ')}")
        seconds = self._rest.seconds() if self._rest else None
        if self._rest is None or seconds is None or self._has_printed_estimate:
            return
        self._has_printed_estimate = True
        n, together = self._rest.jobs, self._rest.side_by_side
        side_by_side = f", {together} at the same time" if together > 1 else ""
        self._print(f"About {duration(seconds)} for {counted(n, 'job')}{side_by_side}.")
