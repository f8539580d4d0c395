"""Predictions of other programs, read into a run."""
