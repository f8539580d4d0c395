"""Output of `tune`: a live table while it runs, then the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ensemble_kit.cli.output.text import columns, duration, printable
from ensemble_kit.errors import command, counted

if TYPE_CHECKING:
    from ensemble_kit.tune.combiner_study import TunedCombiner
    from ensemble_kit.tune.outcome import Gain, TunedMember, TuningResult
    from ensemble_kit.tune.trials import TrialResult
    from ensemble_kit.tune.tuning import Progress

HEAD = ("member", "trials", "pruned", "default", "best", "gain")


class TuningPrinter:
    """A listener for `tune_members`; used as a context. A live table on a terminal, else one line per trial."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._live = (
            Live(console=self.console, transient=True) if self.console.is_terminal else None
        )

    def __enter__(self) -> TuningPrinter:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        if self._live:
            self._live.update(_table(progress))
        elif progress.latest:
            name, result = progress.latest
            done = len(progress.results[name])
            line = f"{name} {done} of {progress.n_trials}: {settings_text(result.values)}: {outcome_text(result)}"
            self.console.print(escape(printable(f"{line}{_left(progress)}")), soft_wrap=True)


def _table(progress: Progress) -> Table:
    table = Table(*HEAD, title=f"Tuning{_left(progress)}", title_justify="left", box=None)
    for name, results in progress.results.items():
        mark = " *" if name in progress.at_work else ""
        table.add_row(*status_row(f"{name}{mark}", results, progress.n_trials))
    return table


def _left(progress: Progress) -> str:
    seconds = progress.seconds_left
    return "" if not seconds else f"; about {duration(seconds)} left"


def status_row(name: str, results: Sequence[TrialResult], n_trials: int | None) -> tuple[str, ...]:
    """One member's row of the live table and of `tune status`."""
    whole = [one.loss for one in results if one.loss is not None]
    default = next((t.loss for t in results if t.origin == "default" and t.loss is not None), None)
    best = min(whole, default=None)
    pruned = sum(one.outcome == "pruned" for one in results)
    gain = "" if best is None or default is None else f"{default - best:+.4f}"
    of = f" of {n_trials}" if n_trials else ""
    return (
        printable(name), f"{len(results)}{of}", str(pruned), _number(default), _number(best), gain,
    )  # fmt: skip


def outcome_text(result: TrialResult) -> str:
    """The loss of a trial, or the reason why it has none."""
    return result.outcome.replace("-", " ") if result.loss is None else f"{result.loss:.4f}"


def settings_text(values: Mapping[str, Any]) -> str:
    """Settings in a line.

    Examples
    --------
    >>> settings_text({"learning_rate": 0.00123, "batch_size": 32})
    'learning rate 0.00123, batch size 32'
    """
    return ", ".join(f"{name.replace('_', ' ')} {value_text(v)}" for name, v in values.items())


def value_text(value: Any) -> str:
    """A setting's value with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def tuning_result(result: TuningResult, n_trials: int) -> str:
    """The result: whether tuning helped, by how much, and the best values."""
    gains = result.gains
    parts = [headline(result)]
    if gains:
        parts.append(gain_table(gains))
        n_groups = gains[0].comparison.n_groups
        parts.append(
            "Log loss on held-out patients; a positive gain is better. Tuned: the values of each fold "
            f"are chosen on the other folds.\nIntervals are over {counted(n_groups, 'patient')}."
        )
    if result.nested:
        parts.append(
            "Nested: the settings of each fold are tuned without it.\n\n"
            f"{gain_table(result.nested)}"
        )
    parts.append(values_table(result.members, n_trials))
    if result.picks:
        picks = ", ".join(f"{pick.name} ({pick.weight:.0%})" for pick in result.picks)
        parts.append(
            f"Stored trials: greedy selection picks {picks}. Their default in the table is the mean of "
            "all current members."
        )
    return "\n\n".join(parts)


def proxy_sentence(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The rank correlation of cheap trials with the full training, as a sentence."""
    sentences = []
    for name, record in records.items():
        if (proxy := record.get("proxy")) is not None:
            found = proxy["rank_correlation"]
            value = "not known" if found is None else f"{found:.2f}"
            sentences.append(f"{name} {value} ({proxy['n_trials']} trials)")
    return f"Rank correlation of the proxy with the full training: {', '.join(sentences)}."


def combiner_result(found: TunedCombiner) -> str:
    """The result of tuning a combiner: whether it helped, and the best settings."""
    word = {"better": "is shown to help", "worse": "is shown to harm"}
    verdict = word.get(found.gain.comparison.verdict, "is not shown to help")
    best = found.best
    is_default = best.origin == "default"
    return "\n\n".join(
        [
            f"Tuning {verdict} the combiner {found.method}.",
            gain_table([found.gain]),
            "Log loss of the cross-fitted combiner; a positive gain is better. Tuned: the settings of "
            "each fold are chosen on the other folds.\n"
            f"Intervals are over {counted(found.gain.comparison.n_groups, 'patient')}.",
            f"Best of {counted(len(found.trials), 'trial')}: {'the default: ' if is_default else ''}"
            f"{settings_text(best.values)} (log loss {_number(best.loss)}).",
        ]
    )


def headline(result: TuningResult) -> str:
    """One sentence: for which members tuning is shown to help."""
    helped = [m.name for m in result.members if m.gain and m.gain.comparison.verdict == "better"]
    hurt = [m.name for m in result.members if m.gain and m.gain.comparison.verdict == "worse"]
    n = len(result.members)
    text = (
        f"Tuning is shown to help {len(helped)} of {n} members: {', '.join(helped)}."
        if helped
        else f"Tuning is not shown to help {'any of the ' + str(n) + ' members' if n > 1 else result.members[0].name}."
    )
    if hurt:
        text += f" It is shown to harm {', '.join(hurt)}."
    if result.ensemble:
        word = {"better": "better", "worse": "worse"}.get(result.ensemble.comparison.verdict)
        text += (
            f" The mean of all members is {word}."
            if word
            else " The mean of all members is not shown to differ."
        )
    return text


def next_training(
    result: TuningResult, trained: Sequence[str], flags: Sequence[str], *, use_tuned: bool = True
) -> Iterator[str]:
    """The command of the next training, and its effect on finished folds.

    Parameters
    ----------
    result : TuningResult
    trained : sequence of str
        Members that have predictions in the run.
    flags : sequence of str
        The options of the training.
    use_tuned : bool
        Whether the training uses tuned values by default.
    """
    if not any(m.best for m in result.members):
        yield "No trial has ended yet. The same command continues."
        return
    changed = [m for m in result.members if m.best and m.best.origin != "default"]
    if not changed:
        yield "The default is the best trial, so the next training does not change."
        yield f"Next: {command('train-members', *flags)}"
        return
    names = ", ".join(m.name for m in changed)
    old = ", ".join(m.name for m in changed if m.name in trained)
    effect = f"trains {names} with the values above"
    if old:
        effect += (
            f". Existing folds of {old} are trained again: the old ones move to replaced/, and "
            "stacked results become out of date"
        )
    verdicts = {m.name: m.gain.comparison.verdict for m in changed if m.gain}
    unproven = [m.name for m in changed if verdicts.get(m.name) != "better"]
    if not unproven or (result.ensemble and result.ensemble.comparison.verdict == "better"):
        yield f"Next: {command('train-members', *flags, *([] if use_tuned else ['--tuned']))}"
        yield f"It {effect}. --no-tuned keeps the default values."
        return
    again = command("train-members", *flags, "--no-tuned")
    yield f"Recommended, because the gain of {', '.join(unproven)} is not shown:"
    yield f"  {again}"
    yield f"Without --no-tuned, train-members {effect}."


def gain_table(gains: Sequence[Gain]) -> str:
    """Loss by default and tuned, and the paired gain with its interval."""
    rows = [("member", "default", "tuned", "gain [95 % interval]", "verdict")]
    for gain in gains:
        found = gain.comparison
        value = found.value if found.value is not None else gain.default - gain.tuned
        value += 0.0  # no minus before zero
        ends = "" if found.low is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
        rows.append(
            (gain.name, _number(gain.default), _number(gain.tuned), f"{value:+.3f}{ends}", found.verdict)
        )  # fmt: skip
    return columns(rows, right=[1, 2])


def values_table(members: Sequence[TunedMember], n_trials: int) -> str:
    """The best trial of each member, and the number of trials and time."""
    names = list(dict.fromkeys(name for m in members if m.best for name in m.best.values))
    head = (
        "best values",
        *(n.replace("_", " ") for n in names),
        "loss",
        "trials",
        "pruned",
        "images",
    )
    rows: list[tuple[str, ...]] = [head]
    for member in members:
        best = member.best
        values = best.values if best else {}
        share = "" if member.share_of_images is None else f"{member.share_of_images:.0%}"
        mark = " (default)" if best and best.origin == "default" else ""
        rows.append(
            (f"{member.name}{mark}", *(value_text(values.get(n, "")) for n in names),
             _number(best.loss if best else None), f"{len(member.trials)} of {n_trials}",
             str(member.n_pruned), share)
        )  # fmt: skip
    return (
        f"{columns(rows, right=range(1, len(head)))}\n"
        "pruned: trials that were stopped early. images: training images, as a share of whole trials."
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
