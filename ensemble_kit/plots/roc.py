"""ROC curves: of several methods for two classes, of each class against the rest for more.

A class without positive or negative samples has no curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.lettering import in_legend, short
from ensemble_kit.plots.style import MUTED, color, grid, line_style, plain


def roc_figure(
    proba: Mapping[str, Array],
    labels: Mapping[str, Array],
    class_names: Sequence[str],
    classes: Sequence[int] | None = None,
) -> Figure:
    """ROC curves, one pane per title.

    Parameters
    ----------
    proba : mapping of "pane: method" to array, shape (n_samples, n_classes)
        With two classes all methods of a pane share one axes; with more classes each has its own.
    labels : mapping of the same keys to array of int, shape (n_samples,)
    class_names : sequence of str
    classes : sequence of int, optional
        The classes with a curve, if there are more than two; all by default.
    """
    drawn = range(len(class_names)) if classes is None else classes
    binary = len(class_names) == 2
    panes: dict[str, list[str]] = {}
    for key in proba:
        panes.setdefault(key.partition(": ")[0] if binary else key, []).append(key)
    figure, axes = grid(len(panes), n_columns=3, width=3.7, height=3.6)
    for one, (title, keys) in zip(axes, panes.items(), strict=True):
        if binary:
            for i, key in enumerate(keys):
                _curve(one, labels[key] == 1, proba[key][:, 1], key.partition(": ")[2], color(i))
            title = f"{title} ({short(class_names[1], 16)} against {short(class_names[0], 16)})"
        else:
            for i, c in enumerate(drawn):
                score = proba[keys[0]][:, c]
                _curve(one, labels[keys[0]] == c, score, class_names[c], color(i), line_style(i))
        _frame(one, title)
    return figure


def _curve(
    axes: Axes, positive: Array, score: Array, name: str, line_color: str, style: str = "-"
) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    if positive.all() or not positive.any():
        return
    false_positive, true_positive, _ = roc_curve(positive, score)
    area = roc_auc_score(positive, score)
    axes.plot(
        false_positive,
        true_positive,
        color=line_color,
        linestyle=style,
        linewidth=1.4,
        label=in_legend(f"{short(name)} {area:.3f}"),
    )


def _frame(axes: Axes, title: str) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=":")
    plain(axes, title=title, x="1 - specificity", y="sensitivity")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.set_xticks(np.linspace(0, 1, 6))
    handles, names = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            names,
            fontsize=7,
            frameon=False,
            loc="lower right",
            title="AUROC",
            title_fontsize=7,
        )
