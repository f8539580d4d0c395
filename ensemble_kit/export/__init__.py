"""Exporting a run: bundles, and graphs for other programs."""
