"""The best values that tuning found for a member, as a small file in the run folder.

Knows no Optuna: whoever trains reads only this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensemble_kit.files import read_json, write_json
from ensemble_kit.run import Run


def best_path(run: Run, member: str) -> Path:
    return run.path / "tuned" / f"{member}.json"


def tuned_values(run: Run, member: str) -> dict[str, Any]:
    """Recipe fields that were tuned for `member` in this run; empty where none were."""
    path = best_path(run, member)
    return dict(read_json(path)["values"]) if path.is_file() else {}


def write_best(run: Run, member: str, values: dict[str, Any], about: dict[str, Any]) -> None:
    """Keep the best recipe fields of `member`, with where they come from."""
    write_json(
        best_path(run, member), {"schema_version": 1, "member": member, "values": values, **about}
    )
