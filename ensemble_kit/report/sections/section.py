"""What a section of the page consists of. Knows no HTML."""

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
        What it shows, for those who do not see it.
    words : str
        How to read it; "" if the section says it.
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
        Its content as a data URI; "" if it could not be read.
    alt : str
    words : tuple of str
        Lines below it.
    link : str
        The file that it is a smaller copy of, beside the page; "" for images of the data.
    width : int
        In CSS pixels, of copies of files; 0: its own.
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
        The place on the page that the cell leads to.
    title : str
    pictures : tuple of Picture
    more : str
        Where the other images are; "" if all are shown.
    """

    key: str
    title: str
    pictures: tuple[Picture, ...]
    more: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """What a section hides until somebody opens it."""

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
        Its place on the page.
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
        Whether its tables stand beside its figures on a wide page.
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
        """Those of the folds too."""
        return [*self.drawings, *(one for fold in self.folds for one in fold.drawings)]

    @property
    def all_sheets(self) -> list[Sheet]:
        """Those of the folds too."""
        return [*self.sheets, *(one for fold in self.folds for one in fold.sheets)]
