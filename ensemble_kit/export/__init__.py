"""A run as something that others use: a bundle, and graphs for other programs."""
