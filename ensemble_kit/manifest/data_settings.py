"""The `[data]` table of the settings: which images, and how they are labelled, grouped and split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ensemble_kit.settings import Settings

EMBEDDED = ("phantom", "digits")
UNKNOWN = ""  # the path if no setting gives one
READER_OPTIONS = (
    "magnification", "label_by", "group_by", "stain", "join", "color", "groups", "image_root",
    "image_suffix", "path_column", "label_column", "group_column", "label_pattern", "group_pattern",
)  # fmt: skip


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class DataSettings(Settings):
    """Which images, how they are labelled and grouped, and how they are split.

    `path` is a folder, a CSV table, a `.npz`, or the name of embedded data: `phantom` (synthetic
    HER2 tissue) or `digits`. The options from `magnification` to `group_pattern` belong to the
    readers. An option that the reader of these data does not have is refused.

    `classes` is the order of the classes, the mildest first. `ordinal`: whether they are ordinal.
    By default the reader sets both. `positive` is the positive class, e.g. `malignant`: it wins tied
    votes under `stack --ties severity`. Average precision, operating points and `stack --clinical`
    are computed for it.
    `test_part = "valid"` uses the validation images of the data (val/) as the test part; `"drawn"`
    draws a random test part, even if the data have one.
    The split is the user's own table (`splits`), else `test_groups`, else the split of the data,
    else a random share `test_size`. Conflicting settings are refused. `fold_seed` draws other folds
    for the same test part; its default is `seed`.
    `infer_groups` makes groups of near-duplicate images if no patients are known, with a caveat.
    `on_bad_image = "skip"` skips up to `max_bad` images that cannot be read, and lists them.
    """

    path: str = EMBEDDED[0]
    magnification: tuple[int, ...] | None = None
    label_by: str | None = None
    group_by: str | None = None
    stain: str | None = None
    join: str | None = None
    color: str | None = None
    groups: str | None = None
    image_root: str | None = None
    image_suffix: str | None = None
    path_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    label_pattern: str | None = None
    group_pattern: str | None = None
    classes: tuple[Annotated[str, BeforeValidator(_number_as_text)], ...] = ()
    ordinal: bool | None = None
    positive: str | None = None
    split_by: Literal["group", "image"] = "group"
    test_size: float = Field(0.2, gt=0, lt=1)
    test_groups: tuple[str, ...] = ()
    test_part: Literal["own", "valid", "drawn"] = "own"
    folds: int = Field(5, ge=2)
    fold_seed: int | None = None
    infer_groups: bool = False
    stain_norm: Literal["none", "macenko", "reinhard"] = "none"
    on_bad_image: Literal["fail", "skip"] = "fail"
    max_bad: int = Field(10, ge=0)
    splits: str | None = None

    def as_requested(self, flags: Mapping[str, Any], usual: Mapping[str, Any]) -> DataSettings:
        """The same settings, with only the user's own values marked as set.

        Parameters
        ----------
        flags : mapping
            Values of options. All that are not None were set by the user. A value of a file counts as
            set if it differs from its default, because the `config.toml` of a run lists all defaults.
        usual : mapping
            Defaults that replace those of this table.
        """
        defaults = DataSettings(**usual)
        requested = {k for k, v in self if flags.get(k) is not None or v != getattr(defaults, k)}
        return DataSettings.model_construct(requested, **dict(self))

    def reader_options(self) -> dict[str, Any]:
        """The options of the reader that were set."""
        values = {name: getattr(self, name) for name in READER_OPTIONS}
        return {name: value for name, value in values.items() if value is not None}
