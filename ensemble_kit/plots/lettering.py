"""Draws text of users exactly as written: without mathematics, with a font for every character.

Names of classes and members may contain `$`, control characters or any script.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy.typing as npt
from matplotlib import ft2font
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

# These fonts draw a box for every character.
NO_LETTERS = ("last resort", "lastresort")
# Scripts that need text shaping: Hebrew to Tibetan, and Khmer.
SHAPED = re.compile("[\u0590-\u109f\u1780-\u17ff\ufb1d-\ufdff\ufe70-\ufefc]")
HAS_SHAPER = bool(getattr(ft2font, "__libraqm_version__", ""))
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class LetteredFigure(Figure):
    """A figure that draws every text exactly as written."""

    def draw(self, renderer: RendererBase) -> None:
        """Prepare all texts with `letter`, then draw."""
        letter(self)
        super().draw(renderer)


def letter(figure: Figure) -> str:
    """Turn off mathematics in all texts, and set their fonts.

    Returns
    -------
    str
        The characters that no installed font can draw.
    """
    rewrite(figure, lambda text: _CONTROL.sub("?", text))
    texts = figure.findobj(Text)
    families, missing = fonts_for("".join(_written(figure)))
    for text in texts:
        text.set_parse_math(False)
        if families:
            text.set_fontfamily([*matplotlib.rcParams["font.family"], *families])
    return missing


def rewrite(figure: Figure, change: Callable[[str], str]) -> None:
    """Change every text of a figure, including named ticks."""
    for text in figure.findobj(Text):
        if text.get_text() != change(text.get_text()):
            text.set_text(change(text.get_text()))
    for formatter in _named_ticks(figure):
        formatter.seq = [change(str(name)) for name in formatter.seq]


def name_ticks(axis: Axis, places: npt.ArrayLike, names: Sequence[str]) -> None:
    """Ticks with names that `rewrite` can change."""
    axis.set_ticks(places)
    axis.set_major_formatter(FixedFormatter(list(names)))


def in_legend(name: str) -> str:
    """A label for the legend: matplotlib leaves out labels that begin with `_`."""
    return f" {name}" if name.startswith("_") else name


def short(name: str, most: int = 28) -> str:
    """`name`, shortened in the middle if it is longer than `most` characters.

    Examples
    --------
    >>> short("adenocarcinoma, poorly differentiated", 20)
    'adenocarci…rentiated'
    """
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[-end:]}"


def spelt_out(text: str, missing: str) -> str:
    """`text` with characters in `missing` replaced by their numbers.

    Examples
    --------
    >>> spelt_out("a\\u826f", "\\u826f")
    'a[U+826F]'
    """
    return "".join(f"[U+{ord(c):04X}]" if c in missing else c for c in text)


def _written(figure: Figure) -> Iterable[str]:
    yield from (text.get_text() for text in figure.findobj(Text))
    for formatter in _named_ticks(figure):
        yield from map(str, formatter.seq)


def _named_ticks(figure: Figure) -> list[FixedFormatter]:
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    found = (axis.get_major_formatter() for axis in axes)
    return [one for one in found if isinstance(one, FixedFormatter)]


def fonts_for(text: str) -> tuple[tuple[str, ...], str]:
    """Font families to use after the usual one, and the characters that no installed font can draw.

    Examples
    --------
    >>> fonts_for("benign")
    ((), '')
    """
    usual = _letters_of(findfont(FontProperties(family=matplotlib.rcParams["font.family"])))
    wanted = frozenset(c for c in text if ord(c) not in usual and not _is_invisible(c))
    families, missing = _families_with(wanted) if wanted else ((), frozenset())
    unshaped = () if HAS_SHAPER else SHAPED.findall(text)
    return families, "".join(sorted({*missing, *unshaped}))


@functools.cache
def _families_with(wanted: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The fewest installed font families for these characters, and the characters without a font."""
    plain = [
        font
        for font in fontManager.ttflist
        if font.style == "normal" and not font.name.lower().startswith(NO_LETTERS)
    ]
    has = {font.name: wanted.intersection(map(chr, _letters_of(font.fname))) for font in plain}
    families: list[str] = []
    while wanted and has:
        best = max(has, key=lambda name: (len(has[name] & wanted), name))
        if not has[best] & wanted:
            break
        families.append(best)
        wanted = wanted - has[best]
    return tuple(families), wanted


@functools.lru_cache(maxsize=4)
def _letters_of(path: str) -> frozenset[int]:
    """The characters that a font has glyphs for; empty if it cannot be read."""
    if not Path(path).is_file():
        return frozenset()
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs")
