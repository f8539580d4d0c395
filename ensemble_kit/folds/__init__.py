"""Folds and hold-out in which no group (the patient) stands on two sides."""

from __future__ import annotations

from ensemble_kit.folds.deal import make_folds
from ensemble_kit.folds.given import read_splits
from ensemble_kit.folds.holdout import hold_out, hold_out_groups
from ensemble_kit.folds.table import Folds

__all__ = ["Folds", "hold_out", "hold_out_groups", "make_folds", "read_splits"]
