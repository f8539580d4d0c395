"""HTTP: carries images to an `Ensemble` and its predictions back. Holds no logic of its own."""
