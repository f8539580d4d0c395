"""Reproducing an experiment: a matrix of variants, a list of steps, and one table of results."""
