"""Diversity of the members, contribution of each, and inference costs."""
