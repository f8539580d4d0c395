"""The reporting checklists TRIPOD+AI and CLAIM 2024, filled in from a run."""

from __future__ import annotations

from ensemble_kit.report.checklist.section import checklist_section

__all__ = ["checklist_section"]
