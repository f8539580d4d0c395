"""A network with its head, its initial checkpoint and its size."""
