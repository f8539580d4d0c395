"""The Ray engine: one task with retries per job, on an existing cluster.

The run folder must be mounted at the same path on every node. The tasks start `run-job`, as any
other scheduler would.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Sequence
from typing import Any

from ensemble_kit.errors import EnvironmentFault, counted
from ensemble_kit.launch.remote import collect_ended, command, run_command
from ensemble_kit.members.jobs.engine import RemoteEngine
from ensemble_kit.members.jobs.events import JobFailed, Listener, Notice
from ensemble_kit.members.jobs.job import Job

TIMEOUT_SECONDS = 10.0
LOOPBACK = ("127.0.0.1", "localhost", "::1", "auto", "local")


@dataclasses.dataclass(frozen=True)
class RayEngine(RemoteEngine):
    """Runs jobs as tasks of a Ray cluster.

    Parameters
    ----------
    address : str
        Address of the cluster; `auto` finds the one of this machine.
    cpus, gpus : float
        CPUs and GPUs per job.
    retries : int
        Number of times that a job is started again after its worker or node died.
    """

    address: str = "auto"
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3

    def __call__(self, jobs: Sequence[Job], listener: Listener) -> list[JobFailed]:
        """Run all jobs; return those that failed."""
        ray = _import_ray()
        refuse_unencrypted(self.address)
        if not ray.is_initialized():
            connect(ray, self.address)
        self._refuse_impossible(ray)
        task = ray.remote(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries, retry_exceptions=False
        )(run_command)
        waiting = {task.remote(command(job, max(1, int(self.cpus)))): job for job in jobs}
        listener(
            Notice(f"{counted(len(waiting), 'job', 'was')} submitted to Ray at {self.address}.")
        )
        failures = []
        try:
            while waiting:
                ready, _ = ray.wait(list(waiting), num_returns=1)
                job = waiting.pop(ready[0])
                try:
                    code, words, n_killed = ray.get(ready[0])
                except ray.exceptions.RayError as error:
                    code, words, n_killed = 1, str(error), 0
                if (
                    failed := collect_ended(job, code, words, listener, n_killed=n_killed)
                ) is not None:
                    failures.append(failed)
        except BaseException:  # also on Ctrl-C and SIGTERM: their results would not be collected
            for task in waiting:
                ray.cancel(task, force=True)
            listener(Notice(f"Cancelled {len(waiting)} Ray tasks. The others had already ended."))
            raise
        return failures

    def _refuse_impossible(self, ray: Any) -> None:
        nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        fits = any(n.get("CPU", 0) >= self.cpus and n.get("GPU", 0) >= self.gpus for n in nodes)
        if not fits:
            largest = max((n.get("CPU", 0), n.get("GPU", 0)) for n in nodes) if nodes else (0, 0)
            raise EnvironmentFault(
                f"A job requests {self.cpus:g} CPUs and {self.gpus:g} GPUs; the largest of {len(nodes)} "
                f"nodes has {largest[0]:g} and {largest[1]:g}",
                "a job must fit onto one node of the cluster",
                "Request less (--cpus, --gpus, --device cpu), or add a larger node",
            )


def refuse_unencrypted(address: str) -> None:
    """Refuse an address beyond this machine without token authentication.

    `auto` is the address in RAY_ADDRESS if it is set.

    Raises
    ------
    EnvironmentFault
        The connection would not be authenticated.
    """
    named = (os.environ.get("RAY_ADDRESS") or address) if address == "auto" else address
    host = named.removeprefix("ray://").rpartition(":")[0] or named
    if host.strip("[]") in LOOPBACK or os.environ.get("RAY_AUTH_MODE") == "token":
        return
    by = " (from RAY_ADDRESS)" if named != address else ""
    raise EnvironmentFault(
        f"The Ray cluster is at '{named}'{by}, and RAY_AUTH_MODE is not 'token'",
        "a cluster beyond this machine is used with token authentication only",
        "Set RAY_AUTH_MODE=token and the cluster's token on every node",
    )


def _import_ray() -> Any:
    # For processes of this engine; a cluster sets its usage reports when it is started.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise EnvironmentFault(
            "The package ray is not installed",
            "--engine ray needs it",
            "Install it: pip install 'ensemble-kit[ray]'",
        ) from error
    return ray


def connect(ray: Any, address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        raise EnvironmentFault(
            f"No Ray cluster can be reached at '{address}' ({str(error).splitlines()[0][:120]})",
            "--engine ray needs a running cluster",
            "Start one (ray start --head), or give its address: --ray-address",
        ) from error
