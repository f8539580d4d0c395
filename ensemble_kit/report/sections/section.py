"""The content of a section of the page."""

from __future__ import annotations

import dataclasses

from matplotlib.figure import Figure

from ensemble_kit.report.sheet import Sheet


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """A figure.

    Parameters
    ----------
    name : str
        Stem of its files.
    alt : str
        Alternative text.
    words : str
        How to read it; may be empty.
    """

    name: str
    figure: Figure
    alt: str
    words: str = ""


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image of the data, or a figure that another command made.

    Parameters
    ----------
    source : str
        Data URI; "" if it cannot be read.
    alt : str
    words : tuple of str
        Lines below it.
    link : str
        The file of which it is a smaller copy; "" for images of the data.
    width : int
        In CSS pixels; 0: the width of the image.
    """

    source: str
    alt: str
    words: tuple[str, ...] = ()
    link: str = ""
    width: int = 0


@dataclasses.dataclass(frozen=True)
class CellImages:
    """The images of one cell of a confusion matrix, shown when its number is clicked.

    Parameters
    ----------
    key : str
        The anchor on the page that the cell links to.
    title : str
    pictures : tuple of Picture
    more : str
        A sentence on the other images; "" if all are shown.
    """

    key: str
    title: str
    pictures: tuple[Picture, ...]
    more: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """A collapsed block of a section."""

    summary: str
    words: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """One section of the page.

    Parameters
    ----------
    key : str
        Its anchor on the page.
    title : str
    words : tuple of str
        Sentences at its top. Text between backticks is shown as code.
    drawings : tuple of Drawing
    sheets : tuple of Sheet
    folds : tuple of Fold
    commands : tuple of str
        Command lines.
    cells : tuple of CellImages
    pictures : tuple of Picture
    is_half : bool
        Whether it takes half of a wide page.
    is_row : bool
        Whether tables are beside figures on a wide page.
    """

    key: str
    title: str
    words: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    folds: tuple[Fold, ...] = ()
    commands: tuple[str, ...] = ()
    cells: tuple[CellImages, ...] = ()
    pictures: tuple[Picture, ...] = ()
    is_half: bool = False
    is_row: bool = False

    @property
    def all_drawings(self) -> list[Drawing]:
        """All drawings, including those in folds."""
        return [*self.drawings, *(one for fold in self.folds for one in fold.drawings)]

    @property
    def all_sheets(self) -> list[Sheet]:
        """All tables, including those in folds."""
        return [*self.sheets, *(one for fold in self.folds for one in fold.sheets)]
