"""Members: an architecture and its recipe, trained on every fold; the logits are stored."""
