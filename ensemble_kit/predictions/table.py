"""The predictions table: aligned logits of all members, with labels, groups and folds by sample id."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, check_labels, check_logits, frozen
from ensemble_kit.errors import DataError, counted, did_you_mean, first_few
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.predictions.join import joined

KINDS = ("oof", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Logits of every member for every sample, aligned.

    Parameters
    ----------
    logits : array, shape (n_samples, n_members, n_classes)
        float32 and read-only; a (sample, member) row without a prediction is NaN.
    sample_ids : array of str, shape (n_samples,)
    labels : array of int64, shape (n_samples,)
        Indices into `class_names`.
    groups : array of str, shape (n_samples,)
        The group (patient) of each sample; a group is on one side of every split.
    member_names, class_names : tuple of str
    fold : array of int64, shape (n_samples,)
        The fold whose models did not see the sample; all -1 for `kind="test"`.
    kind : {"oof", "test"}
        `oof`: each row comes from models that were not trained on it. `test`: mean logits of the
        models of all folds, for samples that no fold was trained on.
    split_by : {"group", "image"}
        `image`: a group may be on both sides of a split, which adds a caveat.
    group_kind : str
        Name of a group, e.g. "patient"; `image` if no groups are known.
    manifest_digest : str
        Digest of the manifest of the rows; "" if it is unknown.
    ordinal : bool
        Whether the classes are ordered.
    notes : tuple of str
        Caveats, shown beside every metric of these rows.
    features : PooledFeatures, optional
        Features of the same rows and members; None if they are not stored or not requested.
    quorum : int, optional
        Minimum number of members that predicted each row; None: missing predictions are an error.
    """

    logits: Array
    sample_ids: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    member_names: tuple[str, ...]
    class_names: tuple[str, ...]
    fold: npt.NDArray[np.int64]
    kind: str = "oof"
    split_by: str = "group"
    group_kind: str = "group"
    manifest_digest: str = ""
    ordinal: bool = False
    notes: tuple[str, ...] = ()
    features: PooledFeatures | None = None
    quorum: int | None = None

    def __post_init__(self) -> None:
        logits = check_logits(self.logits, allow_missing=True)
        n_samples, n_members, n_classes = logits.shape
        put = object.__setattr__
        put(self, "logits", frozen(logits, np.float32))
        put(self, "labels", frozen(check_labels(self.labels, n_samples, n_classes)))
        put(self, "sample_ids", frozen(np.asarray(self.sample_ids, dtype=np.str_)))
        put(self, "groups", frozen(np.asarray(self.groups, dtype=np.str_)))
        put(self, "fold", frozen(np.asarray(self.fold, dtype=np.int64)))
        put(self, "member_names", tuple(map(str, self.member_names)))
        put(self, "class_names", tuple(map(str, self.class_names)))
        put(self, "notes", tuple(self.notes))
        self._check(n_samples, n_members, n_classes)

    def _check(self, n_samples: int, n_members: int, n_classes: int) -> None:
        sizes = {
            "sample_ids": (len(self.sample_ids), n_samples),
            "groups": (len(self.groups), n_samples),
            "fold": (len(self.fold), n_samples),
            "member_names": (len(set(self.member_names)), n_members),
            "class_names": (len(set(self.class_names)), n_classes),
        }
        for name, (got, want) in sizes.items():
            if got != want:
                raise DataError(
                    f"{name} has {got} different entries for {want}",
                    "each sample, member and class needs its own name",
                    "Build the table with Predictions.from_arrays",
                )
        found = self.features
        if found is not None and (len(found), found.n_members) != (n_samples, n_members):
            raise DataError(
                f"Features have {counted(len(found), 'row')} of {counted(found.n_members, 'member')}; the table has {n_samples} rows of {n_members}",
                "both need the same rows and members",
                "Take both from one run: run.predictions(features=True)",
            )
        folded = self.fold >= 0
        if folded.any() and not folded.all():
            raise DataError(
                f"{(~folded).sum()} of {n_samples} rows have no fold "
                f"(first: {first_few(self.sample_ids[~folded], 3)})",
                "either every row has a fold, numbered from 0, or no row has one (all -1)",
                "Number their folds, or leave out these rows: table.take(fold >= 0)",
            )
        unique = len(np.unique(self.sample_ids))
        if unique != n_samples:
            raise DataError(
                f"There are {n_samples} rows for {unique} sample ids",
                "each sample id needs exactly one row",
                "Remove the repeated rows",
            )
        if self.kind not in KINDS:
            raise DataError(
                f"Unknown kind of predictions '{self.kind}'",
                "the kinds are 'oof' and 'test'",
                did_you_mean(self.kind, KINDS),
            )

    @classmethod
    def from_arrays(
        cls,
        members: Mapping[str, npt.ArrayLike],
        labels: npt.ArrayLike,
        *,
        sample_ids: Sequence[str] | npt.NDArray[np.str_] | None = None,
        groups: Sequence[str] | npt.NDArray[np.str_] | None = None,
        class_names: Sequence[str] | None = None,
        fold: npt.ArrayLike | None = None,
        kind: str = "oof",
        split_by: str = "group",
        ordinal: bool = False,
    ) -> Predictions:
        """A table from arrays.

        Parameters
        ----------
        members : mapping of name to array-like of shape (n_samples, n_classes)
            Logits, or log-probabilities, of each member; all in the same order of rows.
        labels : array-like of int, shape (n_samples,)
        sample_ids, groups, fold : array-like of shape (n_samples,), optional
            Without groups each sample is its own group, and `group_kind` is "image".
        class_names : sequence of str, optional
            In the order of the columns; by default the column numbers.

        Examples
        --------
        >>> table = Predictions.from_arrays({"a": [[2.0, 0.0]], "b": [[0.0, 1.0]]}, [0])
        >>> table.logits.shape, table.member_names
        ((1, 2, 2), ('a', 'b'))
        """
        if not members:
            raise DataError(
                "No member was given", "a table needs at least one", "Pass {name: logits}"
            )
        shapes = {name: np.shape(array) for name, array in members.items()}
        if len(set(shapes.values())) != 1:
            listed = first_few(f"{name} {shape}" for name, shape in shapes.items())
            raise DataError(
                f"The members have different shapes: {listed}",
                "all need the same shape (n_samples, n_classes)",
                "Align them by sample id",
            )
        logits = np.stack(
            [np.asarray(array, dtype=np.float32) for array in members.values()], axis=1
        )
        n_samples, _, n_classes = check_logits(logits, allow_missing=True).shape
        ids = np.array([str(i) for i in range(n_samples)]) if sample_ids is None else sample_ids
        return cls(
            logits=logits,
            sample_ids=np.asarray(ids, dtype=np.str_),
            labels=np.asarray(labels),
            groups=np.asarray(ids if groups is None else groups, dtype=np.str_),
            member_names=tuple(members),
            class_names=tuple(map(str, range(n_classes)) if class_names is None else class_names),
            fold=np.full(n_samples, -1) if fold is None else np.asarray(fold),
            kind=kind,
            split_by=split_by,
            group_kind="image" if groups is None else "group",
            ordinal=ordinal,
        )

    # -- views -----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    def n_members(self) -> int:
        return len(self.member_names)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))

    @property
    def available(self) -> npt.NDArray[np.bool_]:
        """Which member has predicted which sample, shape (n_samples, n_members)."""
        return ~np.isnan(self.logits[:, :, 0])

    @property
    def is_complete(self) -> bool:
        """Whether every member has predicted every sample."""
        return bool(self.available.all())

    def take(self, rows: npt.ArrayLike) -> Predictions:
        """The rows of a boolean mask or of positions."""
        rows = np.asarray(rows)
        return dataclasses.replace(
            self,
            logits=self.logits[rows],
            sample_ids=self.sample_ids[rows],
            labels=self.labels[rows],
            groups=self.groups[rows],
            fold=self.fold[rows],
            features=self.features and self.features.take(rows),
        )

    def select(self, member_names: Sequence[str]) -> Predictions:
        """The same rows with these members, in this order."""
        unknown = [name for name in member_names if name not in self.member_names]
        if unknown:
            raise DataError(
                f"The table has no member '{unknown[0]}'",
                f"its members are {first_few(self.member_names)}",
                did_you_mean(unknown[0], self.member_names),
            )
        axis = [self.member_names.index(name) for name in member_names]
        return dataclasses.replace(
            self,
            logits=self.logits[:, axis],
            member_names=tuple(member_names),
            features=self.features and self.features.select(axis),
        )

    def predicted_by_all(self) -> Predictions:
        """The rows that every member has predicted."""
        return self.take(self.available.all(axis=1))

    def join(self, other: Predictions) -> Predictions:
        """The members of both tables over the same samples: rows by id, classes by name.

        Raises
        ------
        DataError
            Samples, labels, groups, folds, classes, manifests or kinds differ, or a member is in both.
        """
        return joined(self, other)
