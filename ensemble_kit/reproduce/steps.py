"""The steps of an experiment: the words of one command for one variant's run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ensemble_kit.experiment import Experiment

Words = list[str]
SETTINGS_FILE = "settings.toml"


@dataclasses.dataclass(frozen=True)
class Target:
    """The input of a step: a variant's settings and their file."""

    experiment: Experiment
    config: Path

    @property
    def run(self) -> list[str]:
        return ["--run", self.experiment.run_path.as_posix()]


def main_method(experiment: Experiment) -> str:
    """The main method of a variant: the first of `methods`, or the mean of its members."""
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


# Step -> its command. `arguments` of experiment.toml are appended.
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
