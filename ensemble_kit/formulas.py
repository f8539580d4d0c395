"""Guards text against spreadsheets, which run a cell that begins like a formula.

Knows single cells; `files.write_csv` guards tables, `files.read_csv` takes the guards away.
"""

from __future__ import annotations

import re

# A guarded cell shows an apostrophe more than its text has, so that each text can be read back.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def guarded(text: str) -> str:
    """`text`, with an apostrophe before what a spreadsheet would take for a formula.

    Examples
    --------
    >>> guarded("=1+1"), guarded("'=1+1"), guarded("slide-7")
    ("'=1+1", "''=1+1", 'slide-7')
    """
    return "'" + text if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """What `guarded` was given.

    Examples
    --------
    >>> unguarded("'=1+1"), unguarded("''=1+1"), unguarded("'s-Gravenhage")
    ('=1+1', "'=1+1", "'s-Gravenhage")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
