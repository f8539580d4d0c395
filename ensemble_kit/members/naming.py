"""Default names of members and of their extra checkpoints: `resnet18-128px-hed`, `resnet18@snap2`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

# Values that a name shows without their key, in this order. Other settings show key and value.
WORDS = {
    "image_size": "{}px",
    "stain": "{}",
    "stain_norm": "{}",
    "color": "{}",
    "schedule": "{}",
    "snapshots": "snap{}",
    "ema_decay": "ema{}",
    "average_beside": "raw",
    "preset": "{}",
}


def name_of(base: str, values: Mapping[str, Any]) -> str:
    """The name of a member that differs from `base` in `values`; their order has no effect.

    Examples
    --------
    >>> name_of("resnet18", {"color": "hed", "image_size": 128})
    'resnet18-128px-hed'
    >>> name_of("resnet18", {"bag": True, "seed": 2}), name_of("resnet18", {"seed": 2})
    ('resnet18-bag2', 'resnet18-s2')
    """
    left = dict(values)
    words = [_word(key, left.pop(key)) for key in WORDS if key in left]
    seed = left.pop("seed", 0)
    if left.pop("bag", False):
        words.append(f"bag{seed or ''}")
    elif seed:
        words.append(f"s{seed}")
    words += [_with_key(key, left[key]) for key in sorted(left)]
    return "-".join([base, *words])


def _word(key: str, value: Any) -> str:
    return f"no-{key}" if value == "none" else WORDS[key].format(_value_text(value))


def _with_key(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return key if value else f"no-{key}"
    if isinstance(value, PurePath):
        value = value.stem
    return f"{key}-{value}" if isinstance(value, str) else f"{key}{_value_text(value)}"


def _value_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def stored_name(member: str, weights: str = "") -> str:
    """The name of a member's extra checkpoint in the prediction store.

    Examples
    --------
    >>> stored_name("resnet18", "snap1"), stored_name("resnet18")
    ('resnet18@snap1', 'resnet18')
    """
    return f"{member}@{weights}" if weights else member
