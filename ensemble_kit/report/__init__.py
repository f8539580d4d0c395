"""The report: what the run's files say, on one page that opens offline."""

from __future__ import annotations

from ensemble_kit.report.page import write_report

__all__ = ["write_report"]
