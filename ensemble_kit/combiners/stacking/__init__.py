"""Combiners that learn from all members' probabilities."""
