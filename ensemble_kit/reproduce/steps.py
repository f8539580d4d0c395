"""The steps of an experiment: each is one command of this package on one variant's run.

Makes the words of the commands; calls nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ensemble_kit.experiment import Experiment

Words = list[str]
SETTINGS_FILE = "settings.toml"


@dataclasses.dataclass(frozen=True)
class Target:
    """What a step is called on: a variant's settings, their file, and the method of its decisions."""

    experiment: Experiment
    config: Path

    @property
    def run(self) -> list[str]:
        return ["--run", self.experiment.run_path.as_posix()]


def main_method(experiment: Experiment) -> str:
    """The method that stands for a variant: the first of `methods`, else the mean of its members."""
    return "mean" if experiment.methods[0] == "all" else experiment.methods[0]


def _check(target: Target) -> Words:
    data = target.experiment.data
    words = ["data", "check", data.path]
    for name, value in data.reader_options().items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += [f"--{name.replace('_', '-')}", text]
    return words


def _stack(target: Target) -> Words:
    return ["stack", *target.run, "--method", ",".join(target.experiment.methods)]


def _on_method(command: str) -> Callable[[Target], Words]:
    return lambda target: [command, *target.run, "--method", main_method(target.experiment)]


# Step -> its command. What [arguments] of experiment.toml says is appended.
STEPS: dict[str, Callable[[Target], Words]] = {
    "check": _check,
    "tune": lambda target: ["tune", "--config", target.config.as_posix()],
    "train": lambda target: ["train-members", "--config", target.config.as_posix()],
    "stack": _stack,
    "operating-point": _on_method("operating-point"),
    "conformal": _on_method("conformal"),
    "explain": _on_method("explain"),
    "report": lambda target: ["report", *target.run],
}
