"""Preprocessing of a stored network beyond timm's settings: stain, joined pairs, colour, TTA."""

from __future__ import annotations

import numpy as np

from ensemble_kit.images.tiles.layout import STAINS, recipes
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.job import Job

# Defaults, which are not written.
PLAIN = (None, "none", "rgb")


def own_input(job: Job) -> dict[str, str]:
    """The entry `ensemble_kit` of `config.json`: the settings that are not defaults.

    Settings of the data and of the member are combined. `data_color` is the colour mode of the
    images as read (with three equal channels), `color` that of the network's input.
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
    """The stain of all images, if the manifest gives the same stain for all."""
    if "stain" not in manifest.table:
        return None
    words = set(manifest.table["stain"].astype(str).str.lower())
    return next((stain for stain in STAINS if words == {stain}), None)
