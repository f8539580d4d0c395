"""Reproducing one experiment, from its folder to RESULTS.md: data, steps, results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.files import cache_folder, digest_json, read_toml
from ensemble_kit.manifest.phantom.relabelled import write_phantom_as
from ensemble_kit.reproduce.experiment_file import FILE, Phantom, Plan, read_plan
from ensemble_kit.reproduce.results import Results, gather
from ensemble_kit.reproduce.results_page import write_results
from ensemble_kit.reproduce.run_steps import Call, StepEnded, run_steps, seconds_of


@dataclasses.dataclass(frozen=True)
class Reproduced:
    """The plan, and the results with their page if all variants are stacked."""

    plan: Plan
    results: Results | None
    page: Path | None


def plan_of(
    folder: Path,
    *,
    data: str | None = None,
    quick: bool = False,
    over: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan of an experiment. For a quick run without data, synthetic images are made first."""
    phantom = _phantom(folder) if quick and data is None else None
    return read_plan(folder, data=data, quick=quick, phantom=phantom, over=over)


def reproduce(
    plan: Plan, call: Call, *, only: str | None = None, listener: Callable[[StepEnded], None]
) -> Reproduced:
    """Run the missing steps of a plan, and write its results.

    Parameters
    ----------
    plan : Plan
    call : callable
        Runs one command. Called with its words and the file for its output.
    only : str, optional
        A single step. Results are written only if the step is `stack` or `report`.
    listener : callable
        Called after each step.
    """
    run_steps(plan, call, only=only, listener=listener)
    if only is not None and only not in ("stack", "report"):
        return Reproduced(plan, None, None)
    results = gather(plan)
    return Reproduced(plan, results, write_results(plan, results, seconds_of(plan)))


def _phantom(folder: Path) -> Path | None:
    """The folder of synthetic images for a quick run. They are made once, in the cache folder."""
    file = folder / FILE
    if not file.is_file():
        return None
    written = read_toml(file).get("quick", {}).get("phantom", {})
    settings = Phantom(**written).model_dump()
    place = cache_folder() / f"phantom-{digest_json(settings)[:8]}"
    return write_phantom_as(settings.pop("layout"), place, **settings)
