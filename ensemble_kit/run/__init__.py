"""The run folder: one experiment's files, in plain formats."""

from __future__ import annotations

from ensemble_kit.run.folder import Run
from ensemble_kit.run.records import versions

__all__ = ["Run", "versions"]
