"""Combiners that are fitted to the probabilities of all members."""
