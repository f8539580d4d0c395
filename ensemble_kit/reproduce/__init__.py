"""Reruns an experiment: a matrix of variants through a list of steps, to one table."""
