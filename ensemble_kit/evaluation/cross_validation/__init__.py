"""Predictions of combiners for rows that they were not fitted to."""
