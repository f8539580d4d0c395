"""From a run to predictions of new images."""
