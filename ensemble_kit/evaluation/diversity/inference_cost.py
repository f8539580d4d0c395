"""Inference cost of each member of a run, read from its `member.json`."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble_kit.errors import DataError, UsageError, did_you_mean, first_few
from ensemble_kit.members.jobs.status import read_spec
from ensemble_kit.run import Run

# Key in `member.json`: name in a sentence.
UNITS = {
    "parameters": "parameters",
    "gmacs": "GMACs per image",
    "ms_per_image": "ms per image",
}


def member_costs(run: Run, members: Sequence[str], unit: str) -> dict[str, float]:
    """The cost of each member.

    Parameters
    ----------
    run : Run
    members : sequence of str
    unit : {"parameters", "gmacs", "ms_per_image"}

    Raises
    ------
    UsageError
        The unit is unknown.
    DataError
        The cost of a member is not known.
    """
    if unit not in UNITS:
        raise UsageError(
            f"Unknown cost unit '{unit}'",
            f"the units are {', '.join(UNITS)}",
            did_you_mean(unit, UNITS),
        )
    found = {}
    for name in members:
        value = read_spec(run, name).get(unit)
        if value is not None:
            found[name] = float(value)
    missing = [name for name in members if name not in found]
    if missing:
        raise DataError(
            f"'{run.path}' has no {UNITS[unit]} of {first_few(missing)}",
            "this cost is needed for every member",
            "Run the same train-members command again, which measures it. For imported members: "
            "import-predictions --member-costs FILE. Or use another cost",
        )
    return found
