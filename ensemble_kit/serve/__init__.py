"""The HTTP server: it passes images to an `Ensemble` and returns the predictions."""
