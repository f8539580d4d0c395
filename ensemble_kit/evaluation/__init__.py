"""Honest evaluation: cross-fitting, group-bootstrap figures, verdicts, and their files."""
