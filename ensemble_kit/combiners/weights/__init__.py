"""Weighted means of members."""
