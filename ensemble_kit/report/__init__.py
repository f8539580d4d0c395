"""The report: one HTML page about a run, which opens offline."""

from __future__ import annotations

from ensemble_kit.report.page import write_report

__all__ = ["write_report"]
