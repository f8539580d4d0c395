"""Tuning: an Optuna study per member, kept in the run folder; its best values feed the next training."""
