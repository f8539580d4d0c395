"""ROC and precision-recall curves of methods for one class, or of each class against the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array, Bools
from ensemble_kit.plots.lettering import in_legend, short
from ensemble_kit.plots.style import MUTED, color, grid, line_style, plain


def roc_pr_figure(scores: Mapping[str, tuple[Bools, Array]]) -> Figure:
    """ROC curves at the left, precision-recall curves at the right, areas in the legends.

    A class without positive or without negative samples is left out.

    Parameters
    ----------
    scores : mapping of name to (array of bool, array), each of shape (n_samples,)
        Whether each sample is positive, and its score.
    """
    from sklearn import metrics

    figure, (roc, pr) = grid(2, n_columns=2, width=3.9, height=3.7)
    for i, (name, (positive, score)) in enumerate(scores.items()):
        if positive.all() or not positive.any():
            continue
        style: dict[str, Any] = {"color": color(i), "linestyle": line_style(i), "linewidth": 1.4}
        x, y, _ = metrics.roc_curve(positive, score)
        area = metrics.roc_auc_score(positive, score)
        roc.plot(x, y, label=in_legend(f"{short(name, 22)} {area:.3f}"), **style)
        precision, recall, _ = metrics.precision_recall_curve(positive, score)
        area = metrics.average_precision_score(positive, score)
        label = in_legend(f"{short(name, 22)} {area:.3f}")
        # scikit-learn ends with a precision of 1 at recall 0, which no threshold has.
        precision[-1] = precision[-2]
        pr.plot(recall, precision, label=label, drawstyle="steps-pre", **style)
    roc.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=":")
    for share in {float(positive.mean()) for positive, _ in scores.values()}:
        pr.axhline(share, color=MUTED, linewidth=0.7, linestyle=":")
    _frame(roc, "ROC", "1 - specificity", "sensitivity", "AUROC")
    _frame(pr, "Precision-recall", "recall (sensitivity)", "precision", "average precision")
    return figure


def _frame(axes: Axes, title: str, x: str, y: str, area: str) -> None:
    plain(axes, title=title, x=x, y=y)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.03)
    axes.set_aspect("equal")
    axes.set_xticks(np.linspace(0, 1, 6))
    handles, names = axes.get_legend_handles_labels()
    if handles:
        place: Literal["lower right", "best"] = "lower right" if area == "AUROC" else "best"
        axes.legend(
            handles, names, fontsize=7, frameon=False, loc=place, title=area, title_fontsize=7
        )
