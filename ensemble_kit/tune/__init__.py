"""Tuning: one Optuna study per member in the run folder; the next training uses its best values."""
