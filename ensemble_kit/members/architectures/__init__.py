"""Networks of this package and of timm."""
