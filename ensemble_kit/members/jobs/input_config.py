"""What a job's network sees beyond timm's words: which image of a pair, how joined, stained, coloured, turned.

Says it for readers of a stored network; makes no image.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.images.tiles.layout import STAINS, recipes
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.job import Job

# What need not be said, since whoever reads a network takes it for granted.
PLAIN = (None, "none", "rgb")


def own_input(job: Job) -> dict[str, str]:
    """What `config.json` says under `ensemble_kit`: each key where it is not the default.

    The data's settings and the member's are resolved into what in fact is done. `data_color` is
    that of the images as they are read, three equal channels, and `color` that of the network.
    """
    member, first = job.member, job.manifest.take(np.arange(1))
    (read,) = recipes(first, stain=member.stain, stain_norm=member.stain_norm)
    values = {
        "stain": member.stain or _stain_of(job.manifest),
        "stain_norm": read.stain_norm,
        "data_color": read.color,
        "join": read.join,
        "color": member.color,
        "tta": member.recipe.regularize.tta,
    }
    return {key: word for key, word in values.items() if word not in PLAIN}


def _stain_of(manifest: Manifest) -> str | None:
    """The one stain of all images, where the manifest says that they are of one."""
    if "stain" not in manifest.table:
        return None
    words = set(manifest.table["stain"].astype(str).str.lower())
    return next((stain for stain in STAINS if words == {stain}), None)
