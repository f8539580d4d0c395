"""The section of tuning: the gains of tuned members, and the plots of each study."""

from __future__ import annotations

from ensemble_kit.report.content import Content
from ensemble_kit.report.sections.section import Fold, Picture, Section
from ensemble_kit.report.sheet import text_sheet
from ensemble_kit.report.tuning import tuning_content

WORDS = (
    "Log loss on held-out {unit}s. Gain: default minus tuned, with its 95 % interval over {unit}s. The "
    "values of each fold are chosen on the other folds. The stored values were chosen on all folds, so "
    "the out-of-fold metrics of tuned members elsewhere on this page are optimistic."
)


def tuning_section(content: Content) -> Section | None:
    """Gains of tuning; None if the run was not tuned."""
    found = tuning_content(content.run)
    if not found.rows and not found.plots:
        return None
    folds = tuple(
        Fold(
            f"Plots of the study of {study}",
            pictures=tuple(
                Picture(image, f"{plot} of the study of {study}", (plot,)) for plot, image in plots
            ),
        )
        for study, plots in found.plots.items()
    )
    words = (WORDS.format(unit=content.unit),) if found.rows else ()
    sheets = (text_sheet("tuning", "Gains of tuning", found.rows),) if found.rows else ()
    return Section("tuning", "Tuning", words, (), sheets, folds)
