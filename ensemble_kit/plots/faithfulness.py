"""Deletion and insertion curves: the probability while pixels are covered or uncovered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.lettering import in_legend, short
from ensemble_kit.plots.style import INK, MUTED, color, grid, plain

BASELINES = {"random map": "--", "centre": ":"}


def faithfulness_figure(
    shares: Array,
    curves: Mapping[str, Mapping[str, Array]],
    areas: Mapping[str, Mapping[str, float]],
) -> Figure:
    """Mean curves over images; baselines in grey, the ensemble in black.

    Parameters
    ----------
    shares : array, shape (n_steps,)
    curves : mapping of `deletion` and `insertion` to mapping of map to array, shape (n_steps,)
    areas : mapping of the same keys to the area under each curve
    """
    figure, axes = grid(2, width=3.9, height=3.1, sharey=True)
    verbs = {"deletion": "covered with white", "insertion": "uncovered on white"}
    for one, (kind, by_map) in zip(axes, curves.items(), strict=True):
        n_members = 0
        for name, curve in by_map.items():
            style: dict[str, Any] = {"color": color(n_members), "linewidth": 1.3}
            if name in BASELINES:
                style = {"color": MUTED, "linewidth": 1.3, "linestyle": BASELINES[name]}
            elif name == "ensemble":
                style = {"color": INK, "linewidth": 2.2}
            else:
                n_members += 1
            label = in_legend(f"{short(name, 20)} {areas[kind][name]:.3f}")
            one.plot(shares, curve, label=label, **style)
        better = "lower is better" if kind == "deletion" else "higher is better"
        plain(one, title=f"{kind}: {better}", x=f"share of pixels {verbs[kind]}", y="probability")
        one.legend(fontsize=6.5, frameon=False, loc="best", title="area", title_fontsize=6.5)
    axes[1].set_ylabel("")
    return figure
