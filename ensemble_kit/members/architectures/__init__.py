"""Networks that this package builds, and those of timm."""
