"""Reads the gains of tuning, and the plots of `tune report`. Does not import Optuna."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

from ensemble_kit.checked import read_checked
from ensemble_kit.run import Run

GAINS = "gains.json"
HEAD = ("member", "default", "tuned", "gain", "verdict")


@dataclasses.dataclass(frozen=True)
class TuningContent:
    """The section on tuning.

    Parameters
    ----------
    rows : list of tuple of str
        Head and one row per member and ensemble; empty if no gain is stored.
    plots : mapping of study to list of (plot, data URL)
    """

    rows: list[tuple[str, ...]]
    plots: dict[str, list[tuple[str, str]]]


def tuning_content(run: Run) -> TuningContent:
    """The gains and plots of a run; both empty if it was not tuned.

    Raises
    ------
    IntegrityError
        The stored gains are damaged.
    """
    return TuningContent(_rows(run.path / "tuned" / GAINS), _plots(run.path / "tuned" / "plots"))


def _rows(path: Path) -> list[tuple[str, ...]]:
    if not path.is_file():
        return []
    gains = read_checked(path, advice="Delete it and run the same tune command again")["gains"]
    rows: list[tuple[str, ...]] = [HEAD]
    for one in gains:
        ends = "" if one["low"] is None else f" [{one['low']:+.3f}, {one['high']:+.3f}]"
        value = "" if one["value"] is None else f"{one['value']:+.3f}{ends}"
        rows.append(
            (one["name"], f"{one['default']:.4f}", f"{one['tuned']:.4f}", value, one["verdict"])
        )
    return rows


def _plots(folder: Path) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(folder.glob("*.png")):
        study, _, plot = path.stem.rpartition("-")
        image = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        found.setdefault(study, []).append((plot, image))
    return found
