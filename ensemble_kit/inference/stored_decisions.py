"""The stored thresholds of a method for new images: prediction sets, decisions and rejection.

They are read from `sets.json` and `decision.json`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.checked import read_checked
from ensemble_kit.errors import IntegrityError, command
from ensemble_kit.evaluation.decisions.conformal import ConformalSets
from ensemble_kit.evaluation.decisions.threshold_rules import (
    Rule,
    Threshold,
    decide,
    one_class_notes,
)
from ensemble_kit.evaluation.runs.ensemble_folder import DECISION, SETS_JSON, alpha_of
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.predictions.method_predictions import Combined

REFER, IMAGE = "refer", "image"


@dataclasses.dataclass(frozen=True, eq=False)
class StoredSets:
    """Conformal prediction sets with the thresholds that `conformal` stored.

    Parameters
    ----------
    rule : ConformalSets
    alpha : float
        Nominal error rate: 1 - alpha is the nominal coverage.
    """

    rule: ConformalSets
    alpha: float


@dataclasses.dataclass(frozen=True)
class StoredDecision:
    """The operating point that `operating-point` stored.

    Parameters
    ----------
    target : int or None
        The class that the threshold applies to. None: the decision is the predicted class.
    points : mapping of unit to Threshold
        For `image`, and for the kind of group if groups have an operating point.
    notes : tuple of str
        Caveats if the threshold assigned all images to one class.
    """

    target: int | None
    points: Mapping[str, Threshold]
    notes: tuple[str, ...] = ()

    def decide(
        self, combined: Combined, class_names: Sequence[str], unit: str = IMAGE
    ) -> list[str]:
        """The decision of each row: a class, `not CLASS`, or `refer`. Length n_samples."""
        none = np.zeros(len(combined.proba), dtype=np.int64)
        made = decide(Rule(self.target), self.points[unit], combined, none)
        words = _words(class_names, self.target)
        return [
            REFER if referred else words[called]
            for called, referred in zip(made.called, made.referred, strict=True)
        ]


def _words(class_names: Sequence[str], target: int | None) -> list[str]:
    """The meaning of each value of `Decisions.called`."""
    if target is None:
        return list(class_names)
    others = [name for c, name in enumerate(class_names) if c != target]
    called = class_names[target]
    return [others[0] if len(others) == 1 else f"not {called}", called]


def read_sets(
    folder: Path, class_names: Sequence[str], now: Mapping[str, Any]
) -> tuple[StoredSets | None, str]:
    """The stored prediction sets, and a caveat or "".

    None if the run has no prediction sets, or cross-conformal ones, which have no thresholds.

    Parameters
    ----------
    folder : path
        `run.ensemble_dir(method)`.
    now : mapping
        Current digests of the method's predictions: see `ensemble_folder.made_of`.

    Raises
    ------
    IntegrityError
        The file is damaged, or belongs to other predictions.
    """
    stored = _read(folder / SETS_JSON, "conformal", now)
    if stored is None:
        return None, ""
    thresholds = stored["thresholds"]
    if thresholds is None:
        return None, (
            "The run's prediction sets are cross-conformal: they have no thresholds for new images. "
            f"Run {_again(folder / SETS_JSON, 'conformal')} without --cross to get them."
        )
    if set(thresholds) != set(class_names):
        raise _of_other_classes(folder / SETS_JSON, thresholds, class_names)
    rule = ConformalSets(stored["score"], np.array([thresholds[c] for c in class_names]))
    return StoredSets(rule, alpha_of(stored)), ""


def read_decision(
    folder: Path, class_names: Sequence[str], now: Mapping[str, Any]
) -> StoredDecision | None:
    """The stored operating point, or None. Parameters and errors: see `read_sets`."""
    stored = _read(folder / DECISION, "operating-point", now)
    if stored is None:
        return None
    called = stored["class"]
    if called is not None and called not in class_names:
        raise _of_other_classes(folder / DECISION, [called], class_names)
    points = {unit: _point(one) for unit, one in stored["units"].items()}
    if any((called is None) != (point.threshold is None) for point in points.values()):
        raise IntegrityError(
            f"'{folder / DECISION}' is damaged",
            "it must have a class with thresholds, or neither",
            f"Run {_again(folder / DECISION, 'operating-point')} again",
        )
    if called is None:
        return StoredDecision(None, points)
    notes = _one_class_caveats(called, stored["units"])
    return StoredDecision(list(class_names).index(called), points, notes)


def _one_class_caveats(called: str, units: Mapping[str, Any]) -> tuple[str, ...]:
    """Caveats on thresholds that assigned all images of a part to one class."""
    counts = {
        unit: {PARTS[p]: one[p] for p in ("in_sample", "test") if p in one}
        for unit, one in units.items()
    }
    return one_class_notes(called, counts)


def _point(stored: Mapping[str, Any]) -> Threshold:
    return Threshold(stored["threshold"], stored["refer_below"] or 0.0)


def _read(path: Path, what: str, now: Mapping[str, Any]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    again = f"Run {_again(path, what)} again"
    stored = read_checked(path, advice=again)
    made = stored.get("made_of", now)
    if stored.get("method") != path.parent.name:
        raise IntegrityError(
            f"'{path}' belongs to the method '{stored.get('method')}'",
            f"a file in this folder must belong to '{path.parent.name}'",
            again,
        )
    members = {name: made["members"].get(name) for name in now["members"]}
    if {**made, "members": members} != now:
        raise IntegrityError(
            f"'{path}' is out of date", "the run's predictions changed since it was written", again
        )
    return stored


def _of_other_classes(
    path: Path, found: Iterable[str], class_names: Sequence[str]
) -> IntegrityError:
    return IntegrityError(
        f"'{path}' has other classes: {', '.join(map(str, found))}",
        f"the run has {', '.join(class_names)}",
        f"Run {_again(path, 'conformal' if path.name == SETS_JSON else 'operating-point')} again",
    )


def _again(path: Path, what: str) -> str:
    folder = path.parent
    return command(what, "--method", folder.name, "--run", folder.parent.parent)
