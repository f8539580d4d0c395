"""An explanation as JSON: the image, and each map as a transparent picture to put over it.

The colours are the same as in the panels of `explain`.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.explanation.caveats import map_caveats
from ensemble_kit.explanation.explain import explain_sources
from ensemble_kit.explanation.ledger import sentence
from ensemble_kit.explanation.panes import TITLES, panes_of
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.sources import Source, png_content
from ensemble_kit.plots.explanation import Pane, overlay

METHOD = "gradcam"


def explained(ensemble: Ensemble, source: Source) -> dict[str, Any]:
    """Maps of the ensemble and its members for one image.

    Returns
    -------
    dict
        `method`; `class` (explained class); `picture` (the image as laid out for the networks); `maps`
        (each with `name`, `kind`, `caption` and `overlay`); `sentence`; `caveats`. Pictures are PNG
        files in `data:` URLs.
    """
    found = explain_sources(ensemble, [source], METHOD)
    names = [*ensemble.member_names, "ensemble", "disagreement"]
    n = len(ensemble.member_names)
    panes = list(zip(names, panes_of(found, 0, {}), strict=False))
    return {
        "method": TITLES[METHOD],
        "class": str(found.class_names[0]),
        "picture": _png(found.pictures[0]),
        "maps": [_map(*one) for one in (panes[n], *panes[:n], *panes[n + 1 :])],
        "sentence": sentence(found, 0),
        "caveats": [
            *map_caveats(METHOD, found.cells, found.replaced.tolist()),
            *found.predictions.caveats[0],
        ],
    }


def _map(name: str, pane: Pane) -> dict[str, str]:
    caption = pane.caption.replace("\n", ", ")
    return {"name": name, "kind": pane.kind, "caption": caption, "overlay": _png(overlay(pane))}


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(png_content(pixels)).decode()
