"""The best values of a member's tuning, as a file in the run folder. Does not import Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.errors import IntegrityError
from ensemble_kit.report.tuning import GAINS
from ensemble_kit.run import Run

METRIC = "log loss on held-out patients of the training rows"


def best_path(run: Run, member: str) -> Path:
    return run.path / "tuned" / f"{member}.json"


def best_record(run: Run, member: str) -> dict[str, Any] | None:
    """Everything that is stored about the best trial of a member; None if it was not tuned.

    Raises
    ------
    IntegrityError
        The file is damaged, was changed later, or belongs to another member.
    """
    path = best_path(run, member)
    if not path.is_file():
        return None
    advice = f"Delete it and run tune --member {member} again, or use train-members --no-tuned"
    best = read_checked(path, advice=advice)
    values = best.get("values")
    if best.get("member") != member or not isinstance(values, dict):
        content = f"values of '{best.get('member')}'" if isinstance(values, dict) else "no values"
        raise IntegrityError(
            f"'{path}' holds {content}", f"it must hold the tuned values of '{member}'", advice
        )
    return best


def tuned_values(run: Run, member: str) -> dict[str, Any]:
    """Settings that were tuned for `member` in this run, by their names in the search space.

    Empty if the member was not tuned, or if no trial was better than the default. Errors as for
    `best_record`.
    """
    return dict((best_record(run, member) or {}).get("values", {}))


def write_gains(run: Run, gains: Sequence[Mapping[str, Any]]) -> None:
    """Store the gains by tuning for the report: one row per member and ensemble."""
    write_checked(run.path / "tuned" / GAINS, {"schema_version": 1, "gains": list(gains)})


def write_best(run: Run, member: str, values: dict[str, Any], about: dict[str, Any]) -> None:
    """Store the best settings of `member`; `about` holds their trial and scores."""
    write_checked(
        best_path(run, member), {"schema_version": 2, "member": member, "values": values, **about}
    )
