"""Batches of tiles for the device."""
