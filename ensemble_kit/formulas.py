"""Protects text against spreadsheets, which run a cell that begins like a formula."""

from __future__ import annotations

import re

# A guarded cell has one more apostrophe than its text, so that every text can be read back.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def guarded(text: str) -> str:
    """`text`, with an apostrophe before it if a spreadsheet would run it as a formula.

    Examples
    --------
    >>> guarded("=1+1"), guarded("'=1+1"), guarded("slide-7")
    ("'=1+1", "''=1+1", 'slide-7')
    """
    return "'" + text if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """The text before `guarded` changed it.

    Examples
    --------
    >>> unguarded("'=1+1"), unguarded("''=1+1"), unguarded("'s-Gravenhage")
    ('=1+1', "'=1+1", "'s-Gravenhage")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
