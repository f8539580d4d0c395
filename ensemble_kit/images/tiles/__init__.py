"""Tiles of one size, stored for training."""
