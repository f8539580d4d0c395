"""Imported tables and arrays: columns and rows by name, values in several formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble_kit.arrays import softmax
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.imports.import_predictions import import_predictions
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.run import Run

QUICK = Protocol(n_resamples=0)


def proba_of(labels: np.ndarray, n_classes: int, *, right: float = 0.9, seed: int = 0):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(n_classes), len(labels)) * 0.4
    hit = np.where(rng.random(len(labels)) < right, labels, rng.integers(0, n_classes, len(labels)))
    proba[np.arange(len(labels)), hit] += 0.6
    return proba


class Case:
    """Labels and members in a folder, and an import of them."""

    def __init__(self, folder: Path, classes: list[str], n: int = 96) -> None:
        self.folder, self.classes = folder, classes
        self.labels = np.arange(n) % len(classes)
        self.ids = [f"s{i:03d}" for i in range(n)]
        self.messages: list[str] = []
        self.write_labels()

    def write_labels(self, **columns: object) -> None:
        frame = {
            "sample_id": self.ids,
            "label": np.array(self.classes)[self.labels],
            "group": [f"P{i // 4}" for i in range(len(self.ids))],
        } | columns
        table = pd.DataFrame({k: v for k, v in frame.items() if v is not None})
        table.to_csv(self.folder / "labels.csv", index=False)

    def proba(self, *, seed: int = 0, right: float = 0.9) -> np.ndarray:
        return proba_of(self.labels, len(self.classes), right=right, seed=seed)

    def write(self, name: str, proba: np.ndarray, columns: list[str] | None = None) -> None:
        frame = pd.DataFrame(proba, columns=columns or self.classes)
        frame.insert(0, "sample_id", self.ids)
        frame.to_csv(self.folder / f"{name}.csv", index=False)

    def load(self, *files: str, run: str = "run", **how: object) -> Run:
        self.messages = []
        members = {Path(file).stem: self.folder / file for file in files}
        labels = self.folder / "labels.csv"
        return import_predictions(
            Run(self.folder / run), labels, members, notify=self.messages.append, **how
        )

    def notes(self, run: Run) -> str:
        return "\n".join(run.predictions().notes)


@pytest.fixture
def case(tmp_path: Path) -> Callable[..., Case]:
    def made(classes: tuple[str, ...] = ("b", "m"), n: int = 96) -> Case:
        return Case(tmp_path, list(classes), n)

    return made


def accuracy_of_mean(run: Run) -> float:
    done = stack_run(run, ["mean"], protocol=QUICK, write=False)
    return float(done.evaluations["mean"].cross_fitted["accuracy"].value)


# -- classes and their columns -------------------------------------------------------------


def test_numbers_as_classes_are_sorted_as_numbers_and_columns_of_arrays_follow(case) -> None:
    c = case(tuple(map(str, range(12))), 240)
    proba = c.proba()
    np.save(c.folder / "a.npy", proba)
    run = c.load("a.npy")
    assert run.manifest().class_names == tuple(map(str, range(12)))
    assert accuracy_of_mean(run) == pytest.approx((proba.argmax(axis=1) == c.labels).mean())
    assert any("0,1,2,3,4,5,6,7,8,9,10,11" in s and "--classes" in s for s in c.messages)


def test_columns_of_an_array_in_another_order_have_a_caveat(case) -> None:
    c = case(tuple(map(str, range(12))), 240)
    as_text = sorted(range(12), key=str)
    np.save(c.folder / "a.npy", c.proba()[:, as_text])
    notes = c.notes(c.load("a.npy"))
    assert "0,1,10,11,2,3,4,5,6,7,8,9" in notes
    order = [str(i) for i in as_text]
    corrected = c.load("a.npy", run="corrected", class_names=order)
    assert accuracy_of_mean(corrected) > 0.8
    assert "order" not in c.notes(corrected)


def test_exchanged_names_of_columns_have_a_caveat(case) -> None:
    c = case()
    c.write("a", c.proba(), ["m", "b"])
    c.write("b", c.proba(seed=1))
    notes = c.notes(c.load("a.csv", "b.csv"))
    assert "a: its predictions fit" in notes
    assert "b: its predictions fit" not in notes


def test_a_member_at_chance_has_a_caveat(case) -> None:
    c = case(n=240)
    proba = c.proba(seed=2)
    np.save(c.folder / "c.npy", proba[np.random.default_rng(0).permutation(240)])
    np.save(c.folder / "a.npy", c.proba())
    notes = c.notes(c.load("a.npy", "c.npy"))
    assert "c: at chance on 240" in notes
    assert "a:" not in notes


def test_rows_of_an_array_sorted_by_id_have_a_caveat(case) -> None:
    c = case(n=240)
    rng = np.random.default_rng(3)
    c.ids = [f"s{i:03d}" for i in rng.permutation(240)]
    c.labels = rng.integers(0, 2, 240)
    c.write_labels()
    np.save(c.folder / "a.npy", c.proba()[np.argsort(c.ids)])
    assert "sorted by image id" in c.notes(c.load("a.npy"))


def test_weak_members_and_unbalanced_classes_have_no_caveat(case) -> None:
    c = case(n=240)
    c.labels = (np.arange(240) % 12 == 0).astype(int)
    c.write_labels()
    score = c.labels * 0.2 + np.random.default_rng(0).random(240) * 0.3
    c.write("a", np.stack([1 - score, score], axis=1))  # never predicts m, but ranks well
    assert c.notes(c.load("a.csv")).count("a: ") == 1  # the caveat of all imported members


def test_a_member_may_have_a_class_without_an_image(case) -> None:
    c = case(("adi", "muc", "tum"), 90)
    names = ["adi", "muc", "str", "tum"]
    four = proba_of(np.array([0, 1, 3])[c.labels], 4)
    c.write("a", four, names)
    run = c.load("a.csv")
    assert run.manifest().class_names == tuple(names)
    assert "'str'" in c.notes(run)
    np.testing.assert_allclose(softmax(run.predictions().logits[:, 0]), four, atol=1e-6)
    done = stack_run(run, ["vote", "logistic"], protocol=Protocol(n_resamples=20))
    assert done.evaluations["vote"].cross_fitted.missing_classes == (2,)
    assert done.evaluations["vote"].cross_fitted["balanced_accuracy"].value > 0.8
    np.save(c.folder / "b.npy", four)
    with pytest.raises(DataError, match="4 columns"):
        c.load("b.npy", run="other")
    assert c.load("b.npy", run="named", class_names=names).manifest().absent == ("str",)
    c.write("z", np.log(four), names)
    with pytest.raises(DataError, match="'str'"):
        c.load("z.csv", run="logits", kind="logits")
    c.load("z.csv", run="logits", kind="logits", class_names=names)


def test_members_with_different_classes_are_refused_by_name(case) -> None:
    c = case(("adi", "muc", "tum"), 90)
    c.write("a", proba_of(c.labels, 4), ["adi", "muc", "tum", "str"])
    c.write("b", c.proba())
    with pytest.raises(DataError, match=r"'b'.*'str'"):
        c.load("a.csv", "b.csv")


# -- values --------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "decimals"), [(1, 2), (1, 3), (100, 0), (100, 1)])
def test_rounded_probabilities_and_percent_are_accepted_with_a_message(
    case, scale, decimals
) -> None:
    c = case(tuple("abcdefgh"), 160)
    proba = c.proba()
    written = (scale * proba).round(decimals)
    c.write("a", written)
    run = c.load("a.csv")
    got = softmax(run.predictions().logits[:, 0])
    np.testing.assert_allclose(
        got, np.maximum(written / written.sum(axis=1, keepdims=True), 1e-7), atol=1e-6
    )
    assert any("sum to" in s for s in c.messages)
    assert any("percent" in s for s in c.messages) == (scale == 100)


def test_exact_probabilities_have_no_message(case) -> None:
    c = case()
    c.write("a", c.proba())
    np.save(c.folder / "b.npy", c.proba().astype(np.float32))
    c.load("a.csv", "b.npy")
    assert not any("sum" in s for s in c.messages)


def test_percent_signs_and_decimal_commas_are_numbers(case) -> None:
    c = case()
    proba = c.proba().round(4)
    cells = [[f"{100 * v:.2f}%".replace(".", ",") for v in row] for row in proba]
    frame = pd.DataFrame(cells, columns=c.classes)
    frame.insert(0, "sample_id", c.ids)
    frame.to_csv(c.folder / "a.csv", index=False, sep=";")
    got = softmax(c.load("a.csv").predictions().logits[:, 0])
    np.testing.assert_allclose(got, np.maximum(proba, 1e-7), atol=1e-6)


@pytest.mark.parametrize("kind", ["proba", "logits"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_row_without_numbers_is_named_by_its_id(case, kind, value) -> None:
    c = case()
    proba = c.proba()
    proba[5] = value
    c.write("a", proba)
    with pytest.raises(DataError, match="s005"):
        c.load("a.csv", kind=kind)


def test_rows_that_are_not_probabilities_are_named_with_their_sum(case) -> None:
    c = case()
    proba = c.proba()
    proba[7] = 0.8, 0.7
    c.write("a", proba)
    with pytest.raises(DataError, match=r"'s007' sums to 1\.5") as caught:
        c.load("a.csv")
    assert "--kind logits" not in str(caught.value)
    c.write("a", proba * 7 - 3)
    with pytest.raises(DataError, match="--kind logits"):
        c.load("a.csv")


def test_a_cell_that_is_not_a_number_is_named(case) -> None:
    c = case()
    c.write("a", c.proba().astype(object))
    text = (c.folder / "a.csv").read_text().splitlines()
    text[3] = "s002,high,low"
    (c.folder / "a.csv").write_text("\n".join(text))
    with pytest.raises(DataError, match=r"'high' in column 'b' \(line 4, 's002'\)"):
        c.load("a.csv")


# -- columns of the labels -----------------------------------------------------------------


@pytest.mark.parametrize(
    "column", ["patient", "patient_id", "case_id", "Group", "Patient ID", "PatientID", "slide-id"]
)
def test_common_names_of_group_columns_are_recognised(case, column) -> None:
    c = case()
    groups = [f"P{i // 4}" for i in range(96)]
    c.write_labels(group=None, **{column: groups})
    c.write("a", c.proba())
    run = c.load("a.csv")
    assert run.manifest().n_groups == 24
    assert run.manifest().group_kind in column.lower()
    assert any(column in s and "24" in s for s in c.messages)


def test_patients_are_preferred_to_slides_and_larger_groups_have_a_caveat(case) -> None:
    c = case()
    slides, patients = [f"S{i // 2}" for i in range(96)], [f"P{i // 8}" for i in range(96)]
    c.write("a", c.proba())
    c.write_labels(group=None, slide=slides, Patient=patients)
    run = c.load("a.csv")
    assert (run.manifest().n_groups, run.manifest().group_kind) == (12, "patient")
    c.write_labels(group=slides, Patient=patients)
    run = c.load("a.csv", run="other")
    assert run.manifest().n_groups == 48
    assert "'Patient'" in c.notes(run)


def test_a_column_that_may_be_the_patient_is_named(case) -> None:
    c = case()
    c.write("a", c.proba())
    c.write_labels(group=None, PatientKeyOfSite=[f"P{i // 4}" for i in range(96)])
    assert "'PatientKeyOfSite'" in c.notes(c.load("a.csv"))


def test_common_names_of_ids_and_labels_are_recognised(case) -> None:
    c = case()
    c.write("a", c.proba())
    c.write_labels(
        sample_id=None, label=None, Filename=c.ids, Diagnosis=np.array(c.classes)[c.labels]
    )
    run = c.load("a.csv")
    assert run.predictions().sample_ids.tolist() == c.ids
    assert any("'Filename'" in s for s in c.messages)
    c.write_labels(label=None)
    with pytest.raises(DataError, match="sample_id, group"):
        c.load("a.csv", run="other")


def test_common_names_of_splits_are_recognised(case) -> None:
    c = case()
    c.write("a", c.proba())
    words = [("Train", "val", "TEST")[i // 32] for i in range(96)]
    c.write_labels(split=words)
    assert len(c.load("a.csv").manifest().part("test")) == 32


# -- rows and columns of members -----------------------------------------------------------


def test_ids_without_folder_or_extension_are_matched(case) -> None:
    c = case()
    proba = c.proba()
    c.write("bare", proba)
    short, c.ids = c.ids, [f"slides/{i}.png" for i in c.ids]
    c.write_labels()
    c.write("back", proba)
    text = (c.folder / "back.csv").read_text().replace("slides/", "D:\\tiles\\")
    (c.folder / "back.csv").write_text(text)
    run = c.load("bare.csv", "back.csv")
    logits = run.predictions().logits
    np.testing.assert_allclose(softmax(logits[:, 0]), proba, atol=1e-6)
    np.testing.assert_array_equal(logits[:, 0], logits[:, 1])
    assert sum("matched by file name" in s for s in c.messages) == 2
    c.ids = [f"{'ab'[i % 2]}/{short[i // 2]}.png" for i in range(96)]
    c.write_labels()
    with pytest.raises(DataError, match="'bare'"):
        c.load("bare.csv", run="other")


def test_the_table_of_predict_is_a_member(case) -> None:
    one = case(["benign", "malignant"])
    proba = one.proba()
    one.write("plain", proba)
    frame = pd.DataFrame(proba, columns=["p_benign", "p_malignant"])
    frame.insert(0, "image", one.ids)
    frame.insert(1, "predicted", np.array(one.classes)[proba.argmax(1)])
    frame["vote_resnet18"], frame["entropy"], frame["caveat"] = "benign", 0.5, ""
    frame.to_csv(one.folder / "predict.csv", index=False)
    oof = one.load("plain.csv", "predict.csv").predictions("oof")
    np.testing.assert_allclose(oof.logits[:, 0], oof.logits[:, 1])


def test_the_table_of_stack_is_a_member_with_the_same_metrics(case) -> None:
    c = case(("=a", "b"), 120)
    c.ids = [f"-{i}" for i in range(120)]
    c.write_labels(split=["test" if i >= 96 else "train" for i in range(120)])
    for seed, name in enumerate("ab"):
        c.write(name, c.proba(seed=seed))
    first = stack_run(c.load("a.csv", "b.csv"), ["mean"], protocol=QUICK)
    wrote = c.folder / "run" / "ensembles" / "mean" / "predictions.csv"
    (c.folder / "mean.csv").write_bytes(wrote.read_bytes())
    again = stack_run(c.load("mean.csv", run="again"), ["mean"], protocol=QUICK)
    for part in ("cross_fitted", "test"):
        one, two = (s.evaluations["mean"].parts[part] for s in (first, again))
        for metric in ("accuracy", "log_loss", "auroc"):
            assert one[metric].value == pytest.approx(two[metric].value, abs=1e-6)
    assert any("p_" in s for s in c.messages)
    labels = import_predictions(Run(c.folder / "labels"), wrote, {"m": wrote}).manifest()
    assert labels.sample_ids.tolist() == c.ids
    assert labels.class_names == tuple(c.classes)
    text = wrote.read_text().replace("oof,b,", "oof,'=a,", 1)
    (c.folder / "mean.csv").write_text(text)
    with pytest.raises(DataError, match=r"1 rows.*'=a'.*'b'"):
        c.load("mean.csv", run="third")


# -- arrays --------------------------------------------------------------------------------


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def zipped(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros((96, 2)))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: np.save(p, np.load(p).astype(object), allow_pickle=True),
        damaged,
        zipped,
        lambda p: p.write_bytes(b""),
        lambda p: np.save(p, np.array([["a", "b"]] * 96)),
        lambda p: np.save(p, np.full((96, 2), 0.5 + 3j)),
        lambda p: np.save(p, np.zeros((96, 2), dtype="M8[s]")),
        lambda p: np.save(p, np.full((96, 2, 1), 0.5)),
        lambda p: np.save(p, np.full((95, 2), 0.5)),
    ],
)
def test_an_unreadable_array_is_named_without_advice_to_delete_it(case, change) -> None:
    c = case()
    np.save(c.folder / "a.npy", c.proba())
    change(c.folder / "a.npy")
    with pytest.raises(DataError, match=r"a\.npy") as caught:
        c.load("a.npy")
    assert "elete" not in str(caught.value)
