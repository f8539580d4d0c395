"""The manifest: one row per image, with its label, its group (the patient) and its split."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, did_you_mean
from ensemble_kit.files import digest_json, read_csv, write_csv
from ensemble_kit.manifest.checks import (
    REQUIRED,
    SPLITS,
    check_positive,
    check_rows,
    check_straddling,
    require_columns,
)
from ensemble_kit.manifest.names import in_natural_order, known_groups
from ensemble_kit.manifest.soft_labels import PREFIX, soft_labels_of

# Columns of some readers that change the input of a network.
DECIDING = ("pair_path", "join", "color", "stain_norm", "sha256")
NO_GROUPS = "image"


@dataclasses.dataclass(frozen=True, eq=False)
class Manifest:
    """One row per image.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `sample_id, path, label, group, split`, then columns of the reader
        (`subtype`, `magnification`, `stain`, ...). `label` holds class names, `split` is `train`
        or `test`, `path` is relative to `root`.
    class_names : sequence of str
        The classes in their order; labels become indices into it.
    root : path
        The folder that the paths are relative to.
    ordinal : bool
        Whether the classes are ordinal (0 < 1+ < 2+ < 3+).
    group_kind : str
        What a group is: `patient`, `slide`, ...; `image` if no groups are known, so that each image
        is its own group.
    name : str
        Name of the data set in tables and reports.
    notes : sequence of str
        Caveats that are shown beside every result from these data.
    split_by : str
        `group`; or `image` if groups may be on both sides of a split on purpose (shown as a caveat).
    absent : sequence of str
        Classes without images in these data, which a model can predict.
    positive : str
        The positive class, e.g. `malignant`; "" if not known.
    layout : str
        The role of each level of folders or column, for the plan. Not stored with a run.

    Raises
    ------
    DataError
        Missing columns, no rows, duplicate ids, unknown labels, a class without images, fewer than
        two classes, an empty group, a path that leaves `root`, or a group in train and test.

    Examples
    --------
    >>> manifest = Manifest.from_records(
    ...     [("a", "a.png", "benign", "p1"), ("b", "b.png", "malignant", "p2")])
    >>> manifest.class_names, manifest.labels.tolist(), manifest.n_groups
    (('benign', 'malignant'), [0, 1], 2)
    """

    table: pd.DataFrame
    class_names: tuple[str, ...]
    root: Path = Path()
    ordinal: bool = False
    group_kind: str = "group"
    name: str = "images"
    notes: tuple[str, ...] = ()
    split_by: str = "group"
    absent: tuple[str, ...] = ()
    layout: str = ""
    positive: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(str(c) for c in self.class_names))
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "notes", tuple(self.notes))
        object.__setattr__(self, "absent", tuple(self.absent))
        require_columns(self.table)
        table = self.table.reset_index(drop=True)
        for column in REQUIRED:
            table[column] = table[column].astype(str)
        object.__setattr__(self, "table", table)
        check_rows(table, self.class_names, self.absent)
        check_positive(self.positive, self.class_names)
        if self.split_by == "group":
            check_straddling(table)

    # -- reading ---------------------------------------------------------------------------

    @classmethod
    def from_records(
        cls,
        records: Iterable[Sequence[Any]],
        *,
        columns: Sequence[str] = ("sample_id", "path", "label", "group"),
        class_names: Sequence[str] | None = None,
        **about: Any,
    ) -> Manifest:
        """A manifest from rows; `split` is `train` if there is no column `split`.

        `class_names` defaults to the labels in natural order; `about` has the remaining fields.
        """
        table = pd.DataFrame.from_records(list(records), columns=list(columns))
        if "split" not in table:
            table["split"] = "train"
        if class_names is None:
            class_names = in_natural_order(table["label"]) if "label" in table else ()
        if "group" in table and about.get("group_kind") != NO_GROUPS:
            samples = table.get("sample_id", table["group"])
            table["group"] = known_groups(table["group"], samples, where="column 'group'")
        return cls(table, tuple(class_names), **about)

    @classmethod
    def read(cls, path: str | os.PathLike[str], **about: Any) -> Manifest:
        """A manifest that `write` wrote; `about` holds the fields that are not in the CSV."""
        return cls(read_csv(path), **about)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table as CSV."""
        write_csv(path, self.table)

    def about(self) -> dict[str, Any]:
        """The fields that the table does not hold, as plain JSON values."""
        return {
            "class_names": list(self.class_names),
            "root": str(self.root),
            "ordinal": self.ordinal,
            "group_kind": self.group_kind,
            "name": self.name,
            "notes": list(self.notes),
            "split_by": self.split_by,
            **({"absent": list(self.absent)} if self.absent else {}),
            **({"positive": self.positive} if self.positive else {}),
        }

    @classmethod
    def from_folders(cls, root: str | os.PathLike[str], **options: Any) -> Manifest:
        """Read class folders: see `ensemble_kit.manifest.layouts.class_folders.read_folders`."""
        from ensemble_kit.manifest.layouts.class_folders import read_folders

        return read_folders(root, **options)

    @classmethod
    def from_digits(cls, **options: Any) -> Manifest:
        """The embedded digits: see `ensemble_kit.manifest.layouts.digits.read_digits`."""
        from ensemble_kit.manifest.layouts.digits import read_digits

        return read_digits(**options)

    # -- columns ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def sample_ids(self) -> npt.NDArray[np.str_]:
        """Sample ids, shape (n_samples,)."""
        return self.table["sample_id"].to_numpy(dtype=np.str_)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class indices, shape (n_samples,)."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return np.array([index[label] for label in self.table["label"]], dtype=np.int64)

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
        """Group names, shape (n_samples,)."""
        return self.table["group"].to_numpy(dtype=np.str_)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def most_severe(self) -> str:
        """The positive class, else the highest ordinal class; "" if neither is known."""
        return self.positive or (self.class_names[-1] if self.ordinal else "")

    @property
    def called_class(self) -> str:
        """The positive class, else the higher one of two ordinal classes; "" if neither is known."""
        return self.most_severe if self.n_classes == 2 else self.positive

    @property
    def soft_labels(self) -> Array | None:
        """Class probabilities in place of the labels, shape (n_images, n_classes); None without columns.

        Raises
        ------
        DataError
            A row has no probabilities, or they do not sum to 1.
        """
        return soft_labels_of(self.table, self.class_names)

    @cached_property
    def n_groups(self) -> int:
        return int(self.table["group"].nunique())

    @property
    def has_groups(self) -> bool:
        """Whether groups are known (else each image is its own group)."""
        return self.group_kind != NO_GROUPS

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the columns that affect results: ids, labels, groups, splits, digests of pixels."""
        soft = [c for c in self.table if str(c).startswith(PREFIX)]
        columns = [*REQUIRED, *(c for c in DECIDING if c in self.table), *soft]
        rows = self.table[columns].astype(str).to_numpy().tolist()
        return digest_json({"columns": columns, "rows": rows, "class_names": self.class_names})

    def counts(self) -> pd.DataFrame:
        """Images and groups per split and class: columns `split, label, images, groups`."""
        out = (
            self.table.groupby(["split", "label"], sort=False)
            .agg(images=("sample_id", "size"), groups=("group", "nunique"))
            .reset_index()
        )
        order = {name: i for i, name in enumerate(self.class_names)}
        out["_order"] = out["label"].map(order)
        out = out.sort_values(["split", "_order"], ascending=[False, True])
        return out.drop(columns="_order").reset_index(drop=True)

    # -- parts -----------------------------------------------------------------------------

    def take(self, rows: npt.ArrayLike) -> Manifest:
        """The rows of a boolean mask or of positions; all classes stay in `class_names`."""
        rows = np.asarray(rows)
        picked = self.table[rows] if rows.dtype == bool else self.table.iloc[rows]
        return self._with(picked)

    def part(self, split: str) -> Manifest:
        """The rows whose split is `train` or `test`; may be empty."""
        if split not in SPLITS:
            raise DataError(
                f"Unknown split '{split}'",
                "a split is 'train' or 'test'",
                did_you_mean(split, SPLITS),
            )
        return self.take((self.table["split"] == split).to_numpy())

    def split(
        self, *, test_size: float = 0.2, seed: int = 0, by: str = "group"
    ) -> tuple[Manifest, Manifest]:
        """A training and a test part of whole groups: see `ensemble_kit.folds.hold_out`."""
        from ensemble_kit.folds import hold_out

        both = hold_out(self, test_size=test_size, seed=seed, by=by)
        return both.part("train"), both.part("test")

    def joined(self, other: Manifest) -> Manifest:
        """The rows of both parts of one data set.

        Raises
        ------
        DataError
            A sample is in both, or a group is on both sides and the split is by group.
        """
        table = pd.concat([self.table, other.table], ignore_index=True)
        notes = (*self.notes, *(n for n in other.notes if n not in self.notes))
        return dataclasses.replace(self, table=table, notes=notes)

    def with_columns(self, **columns: Any) -> Manifest:
        """The same rows with columns added or replaced."""
        return self._with(self.table.assign(**columns))

    def with_notes(self, *notes: str) -> Manifest:
        """The same manifest with more notes."""
        return dataclasses.replace(
            self, notes=(*self.notes, *(n for n in notes if n not in self.notes))
        )

    def _with(self, table: pd.DataFrame) -> Manifest:
        # Not checked again: a part may be without a class, or empty.
        other = object.__new__(Manifest)
        for field in dataclasses.fields(self):
            object.__setattr__(other, field.name, getattr(self, field.name))
        object.__setattr__(other, "table", table.reset_index(drop=True))
        return other

    def __repr__(self) -> str:
        return (
            f"Manifest({self.name!r}: {len(self)} images, {self.n_groups} groups ({self.group_kind}), "
            f"classes {', '.join(self.class_names)})"
        )
