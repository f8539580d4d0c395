"""Training curves: loss per epoch of every fold, one pane per member."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ensemble_kit.plots.style import color, grid, plain

# What `history.csv` of earlier versions calls the validation images.
EARLIER = {"kept fold": "held-out fold", "inner slice": "validation split"}
# With more folds, there is no legend.
MAX_NAMED = 8


def training_figure(histories: Mapping[str, Mapping[int, pd.DataFrame]]) -> Figure:
    """Loss over epochs: thin lines for training, thick lines for validation.

    Parameters
    ----------
    histories : mapping of member to mapping of fold to DataFrame
        Columns `epoch, train_loss, val_log_loss, val_on`.
    """
    figure, axes = grid(len(histories), n_columns=4, width=3.0, height=2.4)
    for one, (member, folds) in zip(axes, histories.items(), strict=True):
        rows = "validation"
        for fold, history in folds.items():
            epochs = history["epoch"] + 1
            rows = str(history["val_on"].iloc[0])
            rows = EARLIER.get(rows, rows)
            one.plot(epochs, history["train_loss"], color=color(fold), linewidth=0.8, alpha=0.55)
            marker = "o" if len(history) < 3 else None
            one.plot(
                epochs, history["val_log_loss"], color=color(fold), linewidth=1.8, marker=marker,
                markersize=3, label=f"fold {fold}",
            )  # fmt: skip
        plain(one, title=member, x=f"epoch (thin: training, thick: {rows})", y="log loss")
        one.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, names = max(
        (one.get_legend_handles_labels() for one in axes), key=lambda of: len(of[1])
    )
    if len(names) <= MAX_NAMED:
        figure.legend(
            handles,
            names,
            fontsize=7.5,
            frameon=False,
            loc="outside lower center",
            ncols=len(names),
        )
    return figure
