"""Writes the report page: one HTML file without scripts, with figures and tables beside it."""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from ensemble_kit.files import write_bytes, write_csv, write_text
from ensemble_kit.plots.style import svg_and_png
from ensemble_kit.replaced import replaced_whole
from ensemble_kit.report.checklist import checklist_section
from ensemble_kit.report.content import Content, gather
from ensemble_kit.report.sections.cost import cost_section, cost_sentence, member_costs
from ensemble_kit.report.sections.curves import (
    calibration_section,
    ranking_section,
    referral_section,
)
from ensemble_kit.report.sections.data import data_section, split_sentence
from ensemble_kit.report.sections.errors import errors_section
from ensemble_kit.report.sections.explanations import explanations_section
from ensemble_kit.report.sections.members import members_section, training_section
from ensemble_kit.report.sections.provenance import provenance_section
from ensemble_kit.report.sections.results import results_section
from ensemble_kit.report.sections.section import Section
from ensemble_kit.report.sections.tuning import tuning_section
from ensemble_kit.report.sections.use import (
    clinical_section,
    ordinal_section,
    point_section,
    sets_section,
)
from ensemble_kit.report.sheet_formats import csv_frame, latex, markdown
from ensemble_kit.run import Run

# Most caveats on the first screen; the others are in a section of their own.
N_CAVEATS = 4
# In the order of reading.
SECTIONS = (
    results_section, errors_section, ranking_section, calibration_section, referral_section,
    ordinal_section, clinical_section, point_section, sets_section, members_section,
    training_section, tuning_section, explanations_section, data_section, cost_section, provenance_section,
)  # fmt: skip
_CODE = re.compile(r"`([^`]+)`")
_SVG_WIDTH = re.compile(rb'<svg[^>]*? width="([\d.]+)pt"')


def write_report(run: Run, scores: pd.DataFrame | None = None, *, checklist: bool = False) -> Path:
    """Write `report/index.html`, its figures and its tables, and return the page's path.

    Parameters
    ----------
    run : Run
        With stored predictions; results of `stack` are shown if there are any.
    scores : DataFrame, optional
        The table of `compare`, shown instead of the stored metrics.
    checklist : bool
        Add the checklists TRIPOD+AI and CLAIM 2024.

    Raises
    ------
    DataError
        The folder has no run or no predictions.
    IntegrityError
        A stored file is damaged or was changed.
    RunLockedError
        Another process writes results in this run.
    """
    with run.writing_results():
        content = gather(run, scores)
        sections = sections_of(content, checklist=checklist)
        return _write(run.report_dir, content, sections)


def sections_of(content: Content, *, checklist: bool = False) -> list[Section]:
    """The sections of the page, in the order of reading."""
    made = [section for make in SECTIONS if (section := make(content)) is not None]
    return [*made, *([checklist_section(content)] if checklist else [])]


def draw(content: Content) -> dict[str, Figure]:
    """The page's figures by name."""
    return {
        one.name: one.figure for section in sections_of(content) for one in section.all_drawings
    }


def _write(folder: Path, content: Content, sections: Sequence[Section]) -> Path:
    figures = {}
    with replaced_whole(folder / "figures") as new_folder:
        for drawing in (one for section in sections for one in section.all_drawings):
            figures[drawing.name], png = svg_and_png(drawing.figure)
            write_bytes(new_folder / f"{drawing.name}.svg", figures[drawing.name])
            write_bytes(new_folder / f"{drawing.name}.png", png)
    with replaced_whole(folder / "tables") as new_folder:
        for sheet in (one for section in sections for one in section.all_sheets):
            write_csv(new_folder / f"{sheet.name}.csv", csv_frame(sheet))
            write_text(new_folder / f"{sheet.name}.md", markdown(sheet))
            write_text(new_folder / f"{sheet.name}.tex", latex(sheet))
    page = folder / "index.html"
    write_text(page, render(content, sections, figures))
    return page


def render(content: Content, sections: Sequence[Section], figures: Mapping[str, bytes]) -> str:
    """The HTML of the page; every name from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("ensemble_kit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = with_code
    return environment.get_template("template.html").render(
        title=f"{content.manifest.name}: {content.run.path.name}",
        content=content,
        sections=sections,
        figures={name: _embedded(image) for name, image in figures.items()},
        facts=first_facts(content),
        n_caveats=min(N_CAVEATS, content.n_main_notes),
        no_groups=not content.manifest.has_groups,
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def first_facts(content: Content) -> list[str]:
    """The sentences below the verdict: the split, the chance level, the cost."""
    split = f"{split_sentence(content)} {content.chance}".strip()
    cost = cost_sentence(content, member_costs(content))
    return [one for one in (split, cost) if one]


def with_code(text: str) -> Markup:
    """Text with the parts between backticks as code; everything is escaped.

    Examples
    --------
    >>> print(with_code("Run `a < b`"))
    Run <code>a &lt; b</code>
    """
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _embedded(image: bytes) -> dict[str, Any]:
    """A figure as a data URI, with its width in CSS pixels."""
    found = _SVG_WIDTH.search(image)
    return {
        "source": "data:image/svg+xml;base64," + base64.b64encode(image).decode(),
        "width": round(float(found.group(1)) * 4 / 3) if found else 700,
    }
