"""The prediction store: the logits of each member as `.npy` files, with an index of digests.

Rows are in the order of the manifest within their split. `index.json` has their ids, by which tables
are joined.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.checked import check_file, read_checked, write_checked
from ensemble_kit.errors import DataError, IntegrityError, did_you_mean, first_few
from ensemble_kit.files import digest_file, read_npy, write_npy

INDEX, OOF_FEATURES = "index.json", "features-oof.npy"
KEYS = {"member", "class_names", "sample_ids", "files", "made_of"}
AGAIN = (
    "Delete that member's folder under predictions/ and run train-members again, which rebuilds it "
    "from the finished folds. For imported predictions, import them again"
)


@dataclasses.dataclass(frozen=True, eq=False)
class MemberFeatures:
    """Pooled features of one member. The model of each fold has its own feature space.

    Parameters
    ----------
    oof : array of float32, shape (n_train, n_features)
        Row i by the model that left out its fold; NaN if that fold stored no features.
    test : dict of fold to array of float32, shape (n_test, n_features)
    """

    oof: Array
    test: dict[int, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class MemberLogits:
    """The stored logits of one member.

    Parameters
    ----------
    oof : array, shape (n_train, n_classes)
        Rows without a prediction are NaN.
    test : dict of fold to array of shape (n_test, n_classes)
    train_ids, test_ids : tuple of str
    class_names : tuple of str
    about : dict
        Digests of manifest, folds and recipe, and any caveats (under `stamps`).
    nested : array, shape (n_folds, n_train, n_classes), optional
        Entry `[k, i]` comes from the model that left out fold k and sample i's own fold. NaN if i is
        in fold k, or if that pair of folds has no predictions.
    features : MemberFeatures, optional
        Pooled features of the same rows; written with the logits, read by `read_features`.
    """

    oof: Array
    test: dict[int, Array]
    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    about: dict[str, Any]
    nested: Array | None = None
    features: MemberFeatures | None = None


class PredictionStore:
    """Logits of members under one folder, `<root>/<member>/{oof,test-fold-<k>,nested}.npy`."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def members(self) -> list[str]:
        """Names of the stored members, sorted."""
        return sorted(p.parent.name for p in self.root.glob(f"*/{INDEX}"))

    def write(self, member: str, logits: MemberLogits) -> None:
        """Store one member's logits; the index is written last, so an interrupted write is not read."""
        folder = self.root / member
        arrays = {"oof.npy": logits.oof} | {f"test-fold-{k}.npy": z for k, z in logits.test.items()}
        if logits.nested is not None:
            arrays["nested.npy"] = logits.nested
        for name, array in arrays.items():
            write_npy(folder / name, np.asarray(array, dtype=np.float32))
        features = _features_written(folder, logits.features)
        write_checked(
            folder / INDEX,
            {
                "schema_version": 1,
                "member": member,
                "class_names": list(logits.class_names),
                "sample_ids": {"oof": list(logits.train_ids), "test": list(logits.test_ids)},
                "files": {name: digest_file(folder / name) for name in arrays},
                **({"features": features} if features else {}),
                "made_of": logits.about,
            },
        )

    def read(self, member: str) -> MemberLogits:
        """The logits of one member; every file is checked against its digest.

        Raises
        ------
        DataError
            The member is not stored.
        IntegrityError
            A file is missing, damaged, or has another shape than in the index.
        """
        folder, index = self.root / member, self.read_index(member)
        arrays = {
            name: self._checked(folder / name, digest) for name, digest in index["files"].items()
        }
        ids = index["sample_ids"]
        classes = tuple(index["class_names"])
        for name, array in arrays.items():
            part = "test" if name.startswith("test-fold-") else "oof"
            want = (len(ids[part]), len(classes))
            if array.shape[-2:] != want or array.ndim != (3 if name == "nested.npy" else 2):
                raise IntegrityError(
                    f"'{folder / name}' has the shape {array.shape}, not {want}",
                    "stored logits must match their index",
                    "Train that member again",
                )
        test = {int(n[10:-4]): z for n, z in arrays.items() if n.startswith("test-fold-")}
        return MemberLogits(
            arrays["oof.npy"],
            test,
            tuple(ids["oof"]),
            tuple(ids["test"]),
            classes,
            index["made_of"],
            arrays.get("nested.npy"),
        )

    def read_index(self, member: str) -> dict[str, Any]:
        """A member's `index.json`.

        Raises
        ------
        DataError
            The member is not stored.
        IntegrityError
            The index is damaged, was changed, or belongs to another member.
        """
        path = self.root / member / INDEX
        if not path.is_file():
            have = self.members()
            raise DataError(
                f"'{self.root}' has no stored logits of the member '{member}'",
                "only members with stored logits can be combined",
                did_you_mean(member, have)
                if have
                else "Train members first: ensemble-kit train-members",
            )
        index = read_checked(path, advice=AGAIN)
        if lacking := KEYS - index.keys():
            raise IntegrityError(
                f"'{path}' has no {first_few(sorted(lacking))}",
                "stored files must stay as they were written",
                AGAIN,
            )
        if index["member"] != member:
            raise IntegrityError(
                f"'{path.parent}' contains the predictions of '{index['member']}'",
                "a folder has the name of its member",
                f"Rename that folder back to '{index['member']}'. Or: {AGAIN}",
            )
        return index

    def read_features(self, member: str) -> MemberFeatures | None:
        """The pooled features of one member; every file is checked. None if there are none.

        Raises
        ------
        IntegrityError
            A file is missing, damaged, or has other rows than in the index.
        """
        folder, index = self.root / member, self.read_index(member)
        files = index.get("features", {})
        if not files:
            return None
        arrays = {name: self._checked(folder / name, digest) for name, digest in files.items()}
        for name, array in arrays.items():
            n_rows = len(index["sample_ids"]["oof" if name == OOF_FEATURES else "test"])
            if array.ndim != 2 or len(array) != n_rows:
                raise IntegrityError(
                    f"'{folder / name}' has the shape {array.shape}, not ({n_rows}, n_features)",
                    "stored features must match their index",
                    "Delete that folder and run train-members --keep-features again",
                )
        oof = arrays.pop(OOF_FEATURES)
        return MemberFeatures(oof, {int(n[19:-4]): a for n, a in arrays.items()})

    @staticmethod
    def _checked(path: Path, digest: str) -> Array:
        check_file(path, digest, advice=AGAIN)
        return read_npy(path)


def _features_written(folder: Path, features: MemberFeatures | None) -> dict[str, str]:
    """Write features beside the logits, and return the digest of each file."""
    if features is None:
        return {}
    arrays = {OOF_FEATURES: features.oof}
    arrays |= {f"features-test-fold-{k}.npy": array for k, array in features.test.items()}
    for name, array in arrays.items():
        write_npy(folder / name, np.asarray(array, dtype=np.float32))
    return {name: digest_file(folder / name) for name in arrays}


def aligned(
    members: Mapping[str, Array], ids: Mapping[str, Sequence[str]], want: npt.NDArray[np.str_]
) -> Array:
    """Members' logits in the order of `want`, stacked on axis 1.

    Parameters
    ----------
    members : mapping of name to array of shape (n_rows, ..., n_classes)
    ids : mapping of name to the sample id of each row
    want : array of str, shape (n_samples,)

    Returns
    -------
    array, shape (n_samples, n_members, ..., n_classes)

    Raises
    ------
    DataError
        A member has missing or other samples.
    """
    stacked = []
    for name, logits in members.items():
        row_of = {sample: i for i, sample in enumerate(ids[name])}
        unknown = set(row_of) ^ set(want.tolist())
        if unknown or len(row_of) != len(ids[name]):
            raise DataError(
                f"{len(unknown)} sample ids of '{name}' do not match the other members: {first_few(sorted(unknown))}",
                "all members need the same samples",
                "Train that member again on this manifest",
            )
        stacked.append(logits[[row_of[sample] for sample in want.tolist()]])
    return np.stack(stacked, axis=1)  # (n_samples, n_members, ..., n_classes)
