"""Tables of the report as CSV, Markdown and LaTeX: the same cells, names escaped."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest

from ensemble_kit.report.sheet import Cell, Sheet, text_sheet, value_cell, values_sheet
from ensemble_kit.report.sheet_formats import csv_frame, latex, latex_text, markdown

EVIL = "<img src=x>|a_b & 5 % \\ $x$ {y} [z] `c`"


@pytest.fixture
def sheet() -> Sheet:
    values = pd.DataFrame(
        [
            {"row": "vote", "metric": "auroc", "part": "test", "value": 0.9, "low": 0.8, "high": 1.0},
            {"row": EVIL, "metric": "auroc", "part": "test", "value": 0.5, "low": None, "high": None},
        ]
    )  # fmt: skip
    return values_sheet(
        "t", "Caption", values, rows=["vote", EVIL, "absent"],
        columns=[("auroc", "test"), ("log_loss", "nested")], head="method",
    ).only(["vote"])  # fmt: skip


def test_files_have_all_rows_and_the_page_the_shown_rows(sheet: Sheet) -> None:
    assert [row[0].text for row in sheet.shown_rows] == ["vote"]
    frame = csv_frame(sheet)
    assert frame["method"].tolist() == ["vote", EVIL, "absent"]
    assert frame["AUROC, test"].tolist() == ["0.900 [0.800, 1.000]", "0.500", "n/a"]
    assert markdown(sheet).count("\n| ") == 1 + 3
    assert latex(sheet).count(r" \\") == 2 + 3


def test_every_row_of_markdown_and_latex_has_a_cell_per_column(sheet: Sheet) -> None:
    rows = [line for line in markdown(sheet).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    body = latex(sheet).partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in body.strip().splitlines()} == {2}


def test_no_name_is_active_in_markdown_or_latex() -> None:
    one = text_sheet("t", EVIL, [("a", "b"), (EVIL, "1")])
    assert "<img" not in markdown(one)
    assert not re.search(r"(?<!\\)[`|_]a_b", markdown(one))
    text = latex_text(EVIL)
    assert not re.search(r"(?<!\\)[&%$_#]", text)
    assert text.count("{") == text.count("}")


def test_neighbouring_columns_of_one_group_have_one_heading() -> None:
    columns = (("", "method"), ("AUROC", "cross-fitted"), ("AUROC", "test"), ("loss", "test"))
    sheet = Sheet("t", "", columns, ((Cell("a"),) * 4,))
    assert sheet.groups == [("", 1), ("AUROC", 2), ("loss", 1)]
    assert r"\multicolumn{2}{c}{AUROC}" in latex(sheet)
    assert sheet.heads == ["method", "AUROC, cross-fitted", "AUROC, test", "loss, test"]


def test_columns_of_one_part_are_named_by_their_metric_alone() -> None:
    values = pd.DataFrame([{"row": "vote", "metric": "auroc", "part": "test", "value": 0.9, "low": 0.8, "high": 1.0}])  # fmt: skip
    sheet = values_sheet("t", "", values, rows=["vote"], columns=[("auroc", "test")], head="method")
    assert sheet.heads == ["method", "AUROC"]
    assert sheet.groups == []


def test_environments_of_latex_are_closed() -> None:
    for n_rows in (3, 60):
        text = latex(text_sheet("t", "C", [("a", "b"), *[("x", "word " * 9)] * n_rows], "Note."))
        begun = re.findall(r"\\begin\{(\w+)\}", text)
        assert begun == re.findall(r"\\end\{(\w+)\}", text)[::-1]
        assert ("longtable" in begun) == (n_rows > 40)
        assert r"p{0.85\linewidth}" in text
        assert text.count("{") == text.count("}")


def test_smaller_text_is_in_brackets_or_parentheses() -> None:
    assert str(value_cell({"value": 0.5, "low": 0.25, "high": 0.75})) == "0.500 [0.250, 0.750]"
    assert str(Cell("mean", "baseline")) == "mean (baseline)"
    assert str(Cell("mean")) == "mean"


def test_a_csv_of_the_cells_is_read_unchanged(sheet: Sheet) -> None:
    frame = csv_frame(sheet)
    again = pd.read_csv(io.StringIO(frame.to_csv(index=False)), keep_default_na=False)
    assert again.to_numpy().tolist() == frame.to_numpy().tolist()


def test_an_undefined_value_is_shown_as_not_available() -> None:
    assert value_cell(None) == value_cell({"value": float("nan"), "low": 0.0, "high": 1.0}) == Cell("n/a")  # fmt: skip
