"""Folds and test parts that keep each group (the patient) on one side."""

from __future__ import annotations

from ensemble_kit.folds.holdout import hold_out, hold_out_groups
from ensemble_kit.folds.stratified_group_folds import make_folds
from ensemble_kit.folds.table import Folds
from ensemble_kit.folds.user_splits import read_splits

__all__ = ["Folds", "hold_out", "hold_out_groups", "make_folds", "read_splits"]
