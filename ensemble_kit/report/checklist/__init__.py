"""Reporting checklists: what a run can answer of TRIPOD+AI and CLAIM 2024."""

from __future__ import annotations

from ensemble_kit.report.checklist.section import checklist_section

__all__ = ["checklist_section"]
