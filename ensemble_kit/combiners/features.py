"""What stackers see of the members: clipped log-probabilities, flat, the same for equal softmaxes.

Adding a constant to a member's logits changes nothing here. Fits nothing.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array, log_softmax

# Beyond this a member is simply sure; a logit of -inf must not become an infinite feature.
FLOOR = -12.0


def clipped_log_proba(logits: Array) -> Array:
    """Log-probabilities, at least `FLOOR`; float64 of shape (n_samples, n_members, n_classes)."""
    return np.maximum(log_softmax(logits), FLOOR)


def flat_features(logits: Array) -> Array:
    """Centred clipped log-probabilities, shape (n_samples, n_members * n_classes)."""
    z = clipped_log_proba(logits)
    z = z - z.mean(axis=2, keepdims=True)
    return z.reshape(len(z), -1)
