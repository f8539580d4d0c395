"""Running the missing steps of every variant, and recording the finished ones."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tomli_w

import ensemble_kit
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.files import digest_json, read_json, write_json, write_text
from ensemble_kit.reproduce.experiment_file import Plan, Planned
from ensemble_kit.reproduce.steps import SETTINGS_FILE, STEPS, Target

DONE = "steps.json"
# Called with the words of a command and the file for its output.
Call = Callable[[Sequence[str], Path], None]


@dataclasses.dataclass(frozen=True)
class StepEnded:
    """A finished step of a variant.

    Parameters
    ----------
    variant, step : str
    variant_number, n_variants : int
        Numbers start at 1.
    is_first, is_last : bool
        Whether it is the first or the last requested step of its variant.
    seconds : float or None
        None if the step was finished by an earlier call.
    """

    variant: str
    step: str
    variant_number: int
    n_variants: int
    is_first: bool
    is_last: bool
    seconds: float | None


def run_steps(
    plan: Plan, call: Call, *, only: str | None = None, listener: Callable[[StepEnded], None]
) -> None:
    """Run the missing steps, variant by variant.

    A step is skipped if it finished before with the same words, settings, version and image files
    (names, sizes, times), and no earlier step was run after it. The output of each command is in
    `runs/VARIANT/logs/STEP.txt`.

    Raises
    ------
    UsageError
        `only` is not a step of the experiment.
    EnsembleKitError
        The error of a failed step. Finished steps stay recorded.
    """
    steps = plan.file.steps
    if only is not None and only not in steps:
        raise UsageError(
            f"Unknown step '{only}'",
            f"the steps of this experiment are {', '.join(steps)}",
            did_you_mean(only, steps),
        )
    requested = [only] if only else list(steps)
    for number, planned in enumerate(plan.variants, start=1):
        for step, words, key in _keyed(plan, planned):
            if step in requested:
                seconds = _run(plan, planned, step, words, key, call)
                place = step == requested[0], step == requested[-1]
                listener(StepEnded(planned.name, step, number, len(plan.variants), *place, seconds))


def seconds_of(plan: Plan) -> dict[str, dict[str, float]]:
    """The seconds of each finished step of each variant."""
    return {
        one.name: {
            step: done["seconds"] for step, done in _read(_folder(plan, one, "train")).items()
        }
        for one in plan.variants
    }


def _keyed(plan: Plan, planned: Planned) -> list[tuple[str, list[str], str]]:
    """Each step with its words and its key. The key depends on the keys of earlier steps."""
    settings = dict(planned.variant.settings)
    config = plan.runs / planned.name / SETTINGS_FILE
    found, before = [], ""
    files = files_state(planned.experiment.data.path)
    for step in plan.file.steps:
        words = words_of(planned, step, config)
        of = words if step == "check" else [before, settings, words]
        key = digest_json([ensemble_kit.__version__, files, of])
        found.append((step, words, key))
        before = before if step in ("check", "report") else key
    return found


def words_of(planned: Planned, step: str, config: Path) -> list[str]:
    """The command of a step, with the variant's own arguments appended."""
    return [*STEPS[step](Target(planned.experiment, config)), *planned.arguments.get(step, ())]


@functools.lru_cache(maxsize=8)
def files_state(path: str) -> str:
    """A digest of `path` and of the names, sizes and times of all files in it."""
    found = []
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            about = (Path(folder) / name).stat()
            found.append([folder, name, about.st_size, about.st_mtime_ns])
    if Path(path).is_file():
        about = Path(path).stat()
        found.append([about.st_size, about.st_mtime_ns])
    return digest_json([path, found])


def _run(
    plan: Plan, planned: Planned, step: str, words: list[str], key: str, call: Call
) -> float | None:
    folder = _folder(plan, planned, step)
    done = _read(folder)
    name = key if step == "check" else step
    if done.get(name, {}).get("key") == key:
        return None
    if step != "check":
        settings = {**planned.variant.settings, "run": planned.experiment.run_path.as_posix()}
        write_text(folder / SETTINGS_FILE, tomli_w.dumps(settings))
    log = plan.runs / planned.name / "logs" / f"{step}.txt"
    began = time.perf_counter()
    call(words, log)
    seconds = round(time.perf_counter() - began, 1)
    write_json(folder / DONE, {**done, name: {"key": key, "seconds": seconds}})
    return seconds


def _folder(plan: Plan, planned: Planned, step: str) -> Path:
    """The folder of a step's record: the folder of all runs for a check, else the run's folder."""
    return plan.runs if step == "check" else plan.runs / planned.name


def _read(folder: Path) -> dict[str, Any]:
    path = folder / DONE
    return dict(read_json(path)) if path.is_file() else {}
