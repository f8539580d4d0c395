"""Metrics of a method: per image, per class, per group, and the verdict."""
