"""Evaluation of combiners: cross-fitting, metrics with intervals over groups, verdicts, files."""
