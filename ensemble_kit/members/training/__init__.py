"""Training and prediction of one network."""
