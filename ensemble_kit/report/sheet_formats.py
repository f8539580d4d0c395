"""A table as CSV, Markdown and LaTeX, with all rows and the text of the page.

Names from the data are escaped in each format.
"""

from __future__ import annotations

import re

import pandas as pd

from ensemble_kit.report.sheet import Sheet

PACKAGES = r"% \usepackage{booktabs,longtable}"
# Longer tables go over several pages.
MAX_ROWS = 40
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}",
}  # fmt: skip
_LATEX_ACTIVE = re.compile("|".join(map(re.escape, _LATEX)))
_MARKDOWN_ACTIVE = re.compile(r"([\\`*_\[\]|])")


def csv_frame(sheet: Sheet) -> pd.DataFrame:
    """The cells as text, under one heading per column."""
    frame = pd.DataFrame([[str(cell) for cell in row] for row in sheet.rows], columns=sheet.heads)
    return frame.astype(str)


def markdown(sheet: Sheet) -> str:
    """A pipe table under its caption.

    Examples
    --------
    >>> from ensemble_kit.report.sheet import text_sheet
    >>> print(markdown(text_sheet("t", "Two", [("a", "b"), ("x|y", "1")])))
    Two
    <BLANKLINE>
    | a | b |
    |---|---:|
    | x\\|y | 1 |
    <BLANKLINE>
    """
    lines = [_markdown_text(sheet.caption), ""] if sheet.caption else []
    other = "---|" if sheet.is_text else "---:|"
    lines += [_markdown_row(sheet.heads), "|---|" + other * (len(sheet.columns) - 1)]
    lines += [_markdown_row([str(cell) for cell in row]) for row in sheet.rows]
    if sheet.note:
        lines += ["", _markdown_text(sheet.note)]
    return "\n".join(lines) + "\n"


def latex(sheet: Sheet) -> str:
    """A `table`, or a `longtable` of many rows; needs the packages booktabs and longtable."""
    kinds, heads = _latex_kinds(sheet), [*_latex_heads(sheet), r"\midrule"]
    body = [_latex_row([str(cell) for cell in row]) for row in sheet.rows]
    caption = rf"\caption{{{latex_text(sheet.caption)}}}" if sheet.caption else ""
    note = rf"\par\smallskip {latex_text(sheet.note)}" if sheet.note else ""
    if len(body) > MAX_ROWS:
        first = [caption + r" \\"] if caption else []
        top = [rf"\begin{{longtable}}{{{kinds}}}", *first, r"\toprule", *heads, r"\endhead"]
        lines = [*top, *body, r"\bottomrule", r"\end{longtable}", note]
    else:
        top = [r"\begin{table}", r"\centering", caption, rf"\begin{{tabular}}{{{kinds}}}"]
        lines = [*top, r"\toprule", *heads, *body, r"\bottomrule", r"\end{tabular}", note, r"\end{table}"]  # fmt: skip
    return "\n".join([PACKAGES, *filter(None, lines)]) + "\n"


def _latex_kinds(sheet: Sheet) -> str:
    """Numbers flush right; sentences in columns of equal width."""
    n_others = len(sheet.columns) - 1
    if not sheet.is_text:
        return "l" + "r" * n_others
    return "l" + rf"p{{{0.85 / n_others:.2f}\linewidth}}" * n_others


def latex_text(text: str) -> str:
    """Text without active characters.

    Examples
    --------
    >>> print(latex_text("95 % of p_1"))
    95 \\% of p\\_1
    """
    return _LATEX_ACTIVE.sub(lambda found: _LATEX[found.group()], " ".join(text.split()))


def _latex_heads(sheet: Sheet) -> list[str]:
    heads = [_latex_row([name for _, name in sheet.columns])]
    if not sheet.groups:
        return heads
    above = [
        latex_text(group) if n == 1 else rf"\multicolumn{{{n}}}{{c}}{{{latex_text(group)}}}"
        for group, n in sheet.groups
    ]
    return [" & ".join(above) + r" \\", *heads]


def _latex_row(cells: list[str]) -> str:
    return " & ".join(map(latex_text, cells)) + r" \\"


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(map(_markdown_text, cells)) + " |"


def _markdown_text(text: str) -> str:
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN_ACTIVE.sub(r"\\\1", plain)
