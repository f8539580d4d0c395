"""Measures whether several processes with few threads train faster than one with all threads.

Run as a module, this file is one of those processes. Results are stored per machine, network, size
and batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from ensemble_kit.launch.end_with_parent import child_environment, end_with_parent
from ensemble_kit.launch.slots import Share
from ensemble_kit.members.jobs.choose_precision import PROBE_BATCH, WORTH_A_PROBE, Known
from ensemble_kit.members.jobs.events import Listener, Notice
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.registry import cost

LONGEST_SECONDS = 300


def fastest_share(
    jobs: Sequence[Job], shares: Sequence[Share], listener: Listener
) -> tuple[Share, dict[str, float]]:
    """The numbers of processes and threads with the most images per second, for the largest network.

    Returns
    -------
    share : Share
        The first of `shares` if the training is too short for a measurement.
    speeds : dict of share to images per second
        Sum over all processes; empty if nothing was measured.
    """
    work = {job.member.name: _epoch_macs(job) * job.member.recipe.epochs for job in jobs}
    total = sum(work[job.member.name] for job in jobs)
    if len(shares) < 2 or total < WORTH_A_PROBE:
        return shares[0], {}
    job = max(jobs, key=lambda j: work[j.member.name])
    batch = min(job.member.recipe.batch_size, PROBE_BATCH)
    known = Known(job.device, "slots")
    key = f"{job.member.network} {job.tiles.image_size} px, batch {batch}, {job.precision}"
    speeds = known.values.get(key)
    if speeds is None or set(speeds) != {str(share) for share in shares}:
        speeds = {str(share): _together(job, batch, share) for share in shares}
        known.add(key, speeds)
        text = ", ".join(f"{share} {speed:.0f} images/s" for share, speed in speeds.items())
        listener(Notice(f"Measured with {job.member.network}: {text}."))
    return max(shares, key=lambda share: speeds[str(share)]), speeds


def _epoch_macs(job: Job) -> float:
    return float(cost(job.member.network, job.tiles.image_size).macs * len(job.manifest))


def _together(job: Job, batch: int, share: Share) -> float:
    """Images per second of all processes together, started at the same time; 0 if one fails."""
    command = [
        sys.executable, "-m", "ensemble_kit.launch.measure_slots", job.member.network,
        str(job.tiles.image_size), str(batch), job.precision, str(share.threads),
    ]  # fmt: skip
    environment = child_environment({"OMP_NUM_THREADS": str(share.threads)})
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment,
        )
        for _ in range(share.slots)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # ready
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None  # go; communicate() must not close it again
        outputs = [process.communicate(timeout=LONGEST_SECONDS)[0] for process in processes]
        return sum(json.loads(words) for words in outputs)
    except (subprocess.TimeoutExpired, ValueError):
        return 0.0
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _one(network: str, image_size: str, batch: str, precision: str, threads: str) -> None:
    end_with_parent()
    import torch

    from ensemble_kit.members.training.throughput import images_per_second

    torch.set_num_threads(int(threads))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    speeds = images_per_second(
        network, int(image_size), int(batch), device="cpu", precision=precision
    )
    sys.stdout.write(json.dumps(speeds["train"]))


if __name__ == "__main__":
    _one(*sys.argv[1:])
