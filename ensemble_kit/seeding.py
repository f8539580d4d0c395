"""Seeds derived from names, so that different steps have different random numbers."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *names: object) -> int:
    """A seed of 63 bits for `names` and the root `seed`.

    The same arguments give the same value on every machine and Python version.

    Examples
    --------
    >>> derive_seed(0, "resnet18", 1) == derive_seed(0, "resnet18", 1)
    True
    >>> derive_seed(0, "resnet18", 1) == derive_seed(0, "resnet18", 2)
    False
    """
    text = "\x1f".join([str(int(seed)), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> np.random.Generator:
    """A numpy Generator for `names` and the root `seed`."""
    return np.random.default_rng(derive_seed(seed, *names))
