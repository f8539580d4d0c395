"""The panel of one image: titles, captions and relative maps, in drawing order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.explanation.explain import Explanation
from ensemble_kit.explanation.fuse import relative
from ensemble_kit.explanation.ledger import sentence
from ensemble_kit.plots.explanation import Pane, panel_figure
from ensemble_kit.plots.lettering import short

TITLES = {
    "gradcam": "Grad-CAM",
    "layercam": "Layer-CAM",
    "gradientshap": "GradientSHAP",
    "integrated-gradients": "integrated gradients",
    "occlusion": "occlusion",
    "shap": "SHAP values",
}
# Methods with another drawing than "evidence": see `plots.explanation.KINDS`.
KINDS = {"gradientshap": "pixels", "integrated-gradients": "pixels", "shap": "signed"}
SCALED = "over each map's 99th percentile"


def explanation_panel(
    explanation: Explanation, i: int, *, truth: str = "", values: Mapping[str, float] | None = None
) -> Figure:
    """The panel of image `i`: the image, each member, the ensemble and the disagreement.

    Parameters
    ----------
    truth : str
        The image's class, or "" if unknown.
    values : mapping of member to float, optional
        Shapley value of each member, shown beside its name.
    """
    wanted = str(explanation.class_names[i])
    return panel_figure(
        explanation.pictures[i],
        panes_of(explanation, i, values or {}),
        title=title_of(explanation, i, truth),
        about=about_of(explanation.method, short(wanted)),
        ledger=sentence(explanation, i)
        + (" In brackets: Shapley value, balanced accuracy, out-of-fold." if values else ""),
        name=explanation.predictions.names[i].rpartition("/")[2],
    )


def panes_of(explanation: Explanation, i: int, values: Mapping[str, float]) -> list[Pane]:
    """The maps of the members and the ensemble. With several members: also their disagreement."""
    found, c = explanation.predictions, explanation.explained[i]
    wanted = short(str(explanation.class_names[i]), 14)
    kind = KINDS.get(explanation.method, "evidence")
    evidence = np.stack([*explanation.maps[i], explanation.ensemble[i]])
    shown = relative(explanation.signed[i] if kind == "signed" else evidence)
    panes = []
    for m, name in enumerate(found.member_names):
        probability = f"p of {wanted} {found.member_proba[i, m, c]:.2f}{_amount(evidence[m])}"
        caption = f"predicts {short(str(found.votes[i, m]), 24)}\n{probability}"
        title = f"{short(name, 16)} ({values[name]:+.3f})" if name in values else short(name, 25)
        panes.append(Pane(title, caption, shown[m], kind))
    caption = f"p of {wanted} {found.proba[i, c]:.2f}{_amount(evidence[-1])}"
    panes.append(Pane("ensemble", caption, shown[-1], kind))
    if len(found.member_names) > 1:
        spread = explanation.disagreement[i]
        panes.append(Pane("disagreement", f"highest {spread.max():.2f}", spread, "spread"))
    return panes


def about_of(method: str, class_name: str) -> str:
    """The meaning of the colours of the maps."""
    if KINDS.get(method) == "signed":
        return f"{TITLES[method]} for (red) and against (blue) {class_name}, {SCALED}"
    return f"{TITLES[method]}: evidence for {class_name}, {SCALED}"


def title_of(explanation: Explanation, i: int, truth: str) -> str:
    """The prediction and the truth in one line."""
    found, c = explanation.predictions, explanation.explained[i]
    predicted = str(found.classes[i])
    wanted = str(explanation.class_names[i])
    p = f"p {found.proba[i, c]:.2f}"
    title = f"Predicted: {short(predicted) if predicted else 'none (abstained)'}"
    title += f" ({p})" if predicted == wanted else f"; maps: {short(wanted)} ({p})"
    if truth:
        title += f".  Truth: {short(truth)}" + ("" if truth == predicted else " (wrong)")
    return title


def _amount(found: Array) -> str:
    """The total evidence as text, in units of the logit."""
    return ", empty map" if found.max() <= 0 else f", evidence {found.mean():.1f}"
