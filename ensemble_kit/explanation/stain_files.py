"""The figure of one image's stain curve, and the values for its record."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ensemble_kit.explanation.image_files import ImageFiles
from ensemble_kit.explanation.stain_curve import StainCurve, stain_curve, with_stain
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.sources import Source
from ensemble_kit.plots.lettering import short
from ensemble_kit.plots.stain_curve import stain_curve_figure
from ensemble_kit.plots.style import png_bytes

SHOWN, THUMBNAIL = 5, 160
WRITTEN = {"dab": "DAB"}


def write_stain_curve(
    ensemble: Ensemble, source: Source, stain: str, place: ImageFiles
) -> dict[str, Any]:
    """Draw the stain curve of an image. Return its values and the path of the figure."""
    found = stain_curve(ensemble, source, stain)
    image = source.read(source.pair_path if source.pair_path and stain == "dab" else source.path)
    amounts = np.linspace(found.amounts[0], found.amounts[-1], SHOWN).tolist()
    small = _smaller(image)
    figure = stain_curve_figure(
        found.amounts,
        found.proba,
        found.class_names,
        [one.amount for one in found.flips],
        [with_stain(small, stain, amount) for amount in amounts],
        stain=WRITTEN.get(stain, stain),
        title=f"{short(source.name.rpartition('/')[2], 50)}\n{flip_sentence(found)}",
    )
    return {
        "stain": stain,
        "amounts": found.amounts.tolist(),
        "proba": {c: found.proba[:, i].tolist() for i, c in enumerate(found.class_names)},
        "flips": [vars(one) for one in found.flips],
        "sentence": flip_sentence(found),
        "figure": place.write("panels", f"stain-{stain}.png", png_bytes(figure)),
    }


def flip_sentence(found: StainCurve) -> str:
    """The prediction, and its nearest changes with less and with more stain."""
    now = found.predicted[int(np.argmin(np.abs(found.amounts - 1)))] or "no class"
    below = [one for one in found.flips if one.amount <= 1]
    above = [one for one in found.flips if one.amount > 1]
    stain = WRITTEN.get(found.stain, found.stain)
    if not found.flips:
        ends = f"{found.amounts[0]:g} to {found.amounts[-1]:g}"
        return f"Predicted {now} at every amount of {stain} from {ends}."
    sentences = [f"Predicted {now}."]
    if below:
        sentences.append(
            f"With less than {below[-1].amount:.2f} times the {stain}: {below[-1].before}."
        )
    if above:
        sentences.append(
            f"With more than {above[0].amount:.2f} times the {stain}: {above[0].after}."
        )
    return " ".join(sentences)


def _smaller(image: Any) -> Any:
    whole = Image.fromarray(image)
    whole.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(whole)
