"""Members: an architecture and its recipe, trained over folds, its logits kept."""
