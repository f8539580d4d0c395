"""Options of train-members: where and how jobs run. The results do not depend on them."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.options.shared import Command, with_options
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.members.jobs.engine import Engine

# Option -> its engines, and the advice for other engines.
FOR = {
    "slots": (("local", "slurm"), "Ray runs as many jobs as --cpus and --gpus allow"),
    "ray_address": (("ray",), "Remove it, or use --engine ray"),
    "retries": (("ray",), "Remove it, or use --engine ray"),
    "partition": (("slurm",), "Remove it, or use --engine slurm"),
    "slurm": (("slurm",), "Remove it, or use --engine slurm"),
    "no_wait": (("slurm",), "Remove it, or use --engine slurm"),
    "time_limit": (("slurm",), "Remove it, or use --engine slurm"),
    "gpus": (
        ("ray", "slurm"),
        "Choose the GPU of local jobs with --device, and the number of jobs with --slots",
    ),
}


class KeyValue(click.ParamType):
    """KEY=VALUE or KEY as a pair."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        key, _, rest = value.partition("=")
        key = key.strip().lstrip("-")
        if not re.fullmatch(r"[A-Za-z][\w-]*", key):
            self.fail(f"'{value}' has no key; write e.g. account=lab7", param, ctx)
        return key, rest


_OPTIONS = [
    click.option("--ray-address", help="Ray: address of the cluster. [default: auto]"),
    click.option("--partition", help="Slurm: partition."),
    click.option(
        "--slurm",
        type=KeyValue(),
        multiple=True,
        help="Slurm: an option of sbatch, e.g. account=lab7 or qos=long. Can be repeated. "
        "python=PATH sets the interpreter on the nodes. setup=LINE runs a shell line before it.",
    ),
    click.option(
        "--no-wait",
        is_flag=True,
        help="Slurm: submit the jobs and return. ensemble-kit status shows their progress.",
    ),
    click.option(
        "--cpus",
        type=click.IntRange(min=1),
        help="CPU cores per job. [default: an equal share; Ray 1, Slurm 4]",
    ),
    click.option(
        "--gpus",
        type=click.FloatRange(min=0),
        help="GPUs per job. Ray accepts fractions, e.g. 0.5. [default: 1; with --device cpu 0]",
    ),
    click.option(
        "--time-limit",
        type=click.IntRange(min=1),
        metavar="MINUTES",
        help="Slurm: time limit per job. A job that reaches it continues when the command is run again. [default: 240]",
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        help="Ray: largest number of restarts of a job whose worker or node failed. [default: 3]",
    ),
]


def launch_options(command: Command) -> Command:
    """Add the options of the engines."""
    return with_options(command, _OPTIONS)


@dataclasses.dataclass(frozen=True)
class Launch:
    """How jobs are started; None means the default of the engine."""

    slots: int | None = None
    engine: str = "local"
    ray_address: str | None = None
    partition: str | None = None
    slurm: tuple[tuple[str, str], ...] = ()
    no_wait: bool = False
    cpus: int | None = None
    gpus: float | None = None
    time_limit: int | None = None
    retries: int | None = None
    shard: tuple[int, int] | None = None
    nested: bool = False
    keep_features: bool = False
    mlflow: bool = False
    retrain: bool = False

    @classmethod
    def checked(cls, **flags: Any) -> Launch:
        """The options of this engine.

        Raises
        ------
        UsageError
            An option belongs to another engine.
        """
        launch = cls(**flags)
        for name, (engines, advice) in FOR.items():
            if _is_given(getattr(launch, name)) and launch.engine not in engines:
                raise UsageError(
                    f"--{name.replace('_', '-')} is for --engine {' and '.join(engines)}",
                    f"the engine is {launch.engine}",
                    advice,
                )
        if launch.engine == "slurm" and launch.gpus is not None and launch.gpus % 1:
            raise UsageError(
                f"--gpus {launch.gpus:g} is not possible with Slurm",
                "a Slurm job uses whole GPUs",
                "Use 0 or 1",
            )
        return launch

    def own(self, jobs: list[str]) -> list[str]:
        """The jobs of this shard, in the order of the plan."""
        return jobs[self.shard[0] - 1 :: self.shard[1]] if self.shard else jobs

    def made(self, n_jobs: int, device: str) -> tuple[Engine | None, bool]:
        """The engine (None for this process), and whether it reports each epoch when it ends."""
        if self.engine == "ray":
            return self._ray(device), False
        if self.engine == "slurm":
            return self._slurm(device), False
        from ensemble_kit.launch.local import LocalEngine
        from ensemble_kit.members.training.precision import choose_device

        kind = choose_device(device).type
        # A job on a GPU has its own process: a lost device affects only that process.
        alone = kind == "cpu" and (self.slots == 1 or n_jobs == 1) and self.cpus is None
        return (None if alone else LocalEngine(self.slots, self.cpus or 0)), True

    def _ray(self, device: str) -> Engine:
        from ensemble_kit.launch.ray import RayEngine

        given = {"cpus": self.cpus, "retries": self.retries, "address": self.ray_address}
        return RayEngine(gpus=self._gpus(device), **_without_none(given))

    def _slurm(self, device: str) -> Engine:
        from ensemble_kit.launch.slurm import SlurmEngine

        given = {"cpus": self.cpus, "minutes": self.time_limit, "at_once": self.slots}
        return SlurmEngine(
            self.partition,
            gpus=int(self._gpus(device)),
            options=self.slurm,
            wait=not self.no_wait,
            **_without_none(given),
        )

    def _gpus(self, device: str) -> float:
        # The devices of the nodes are not known here.
        default = 0.0 if device == "cpu" else 1.0
        return default if self.gpus is None else self.gpus


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value != ()


def _without_none(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
