"""Checks a data set for leakage and bad images."""
