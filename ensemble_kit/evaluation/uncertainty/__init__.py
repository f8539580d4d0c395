"""Intervals and tests over whole groups."""
