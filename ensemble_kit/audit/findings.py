"""The result of a check: findings with a severity."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pandas as pd

from ensemble_kit.audit.color import ColorLeak

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding of the check.

    Parameters
    ----------
    kind : str
        A short name, stable for scripts: `unreadable`, `duplicate-across-splits`, ...
    severity : {"error", "warning", "note"}
        `error`: results from these data would be wrong.
    count : int
        Number of images, pairs, groups or classes.
    message : str
        The problem, and its consequence.
    examples : tuple of str
        The first examples.
    """

    kind: str
    severity: Severity
    count: int
    message: str
    examples: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
    """The result of a check.

    Parameters
    ----------
    name : str
    n_images, n_groups : int
    group_kind : str
    counts : pandas.DataFrame
        Images and groups per split, class and magnification (if known).
    findings : tuple of Finding
        Errors first.
    leak : ColorLeak or None
        None if it was not measured.
    """

    name: str
    n_images: int
    n_groups: int
    group_kind: str
    counts: pd.DataFrame
    findings: tuple[Finding, ...]
    leak: ColorLeak | None = None

    @property
    def n_errors(self) -> int:
        return sum(f.severity == "error" for f in self.findings)

    @property
    def exit_code(self) -> int:
        """3 if a result would be wrong, else 0."""
        return 3 if self.n_errors else 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        leak = (
            None
            if self.leak is None
            else {**dataclasses.asdict(self.leak), "points": self.leak.points}
        )
        return {
            "name": self.name,
            "n_images": self.n_images,
            "n_groups": self.n_groups,
            "group_kind": self.group_kind,
            "counts": self.counts.to_dict("records"),
            "findings": [dataclasses.asdict(f) for f in self.findings],
            "color_leak": leak,
            "exit_code": self.exit_code,
        }


def sorted_findings(findings: list[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes; otherwise in the order found."""
    return tuple(sorted(findings, key=lambda f: ORDER.index(f.severity)))
