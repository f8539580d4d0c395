"""The user's order of classes is used with every reader; other names are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.manifest.class_order import with_class_order
from ensemble_kit.manifest.table import Manifest


def made(*names: str, **about: object) -> Manifest:
    rows = [(f"{k}", f"{k}.png", name, f"p{k}") for k, name in enumerate(names)]
    return Manifest.from_records(rows, **about)


def test_classes_and_labels_follow_the_given_order() -> None:
    manifest = with_class_order(
        made("severe", "mild", "none of it"), ["none of it", "mild", "severe"]
    )
    assert manifest.class_names == ("none of it", "mild", "severe")
    assert manifest.labels.tolist() == [2, 1, 0]
    assert not manifest.ordinal


def test_an_ordinal_scale_without_numbers_needs_its_order() -> None:
    with pytest.raises(DataError, match="--classes"):
        with_class_order(made("mild", "severe"), ordinal=True)
    assert with_class_order(made("mild", "severe"), ["mild", "severe"], ordinal=True).ordinal
    ordinal = with_class_order(made("ISUP 10", "ISUP 2"), ordinal=True)
    assert (ordinal.class_names, ordinal.ordinal) == (("ISUP 2", "ISUP 10"), True)


def test_the_ordinal_flag_overrides_the_reader() -> None:
    her2 = made("0", "1+", ordinal=True)
    assert with_class_order(her2).ordinal
    assert not with_class_order(her2, ordinal=False).ordinal


@pytest.mark.parametrize(
    ("classes", "named"),
    [(["a"], "'b, c'"), (["a", "b, c", "d"], "'d'"), (["a", "a", "b, c"], "'a'"),
     (["a", "b,c"], "Did you mean 'b, c'")],
)  # fmt: skip
def test_other_classes_than_those_of_the_data_are_refused(classes: list[str], named: str) -> None:
    with pytest.raises(DataError) as caught:
        with_class_order(made("a", "b, c"), classes)
    assert named in str(caught.value)
    assert "--classes 'a,\"b, c\"'" in str(caught.value)


def test_the_plan_shows_the_order_of_the_command_line(
    paint: Callable[..., Path], tmp_path: Path, cli: Callable[..., tuple[int, str]]
) -> None:
    paint(tmp_path / "d", n_patients=4, n_images=1, classes=("in situ, DCIS", "benign"))
    words = ("train-members", "--data", "d", "--members", "tiny_cnn", "--image-size", 16,
             "--no-pretrained", "--folds", 2, "--dry-run")  # fmt: skip
    code, printed = cli(*words, "--classes", 'benign,"in situ, DCIS"', "--ordinal")
    assert (code, "benign < in situ, DCIS" in printed) == (0, True)
    code, printed = cli(*words, "--classes", "benign,DCIS")
    assert (code, "'DCIS'" in printed) == (3, True)
    (tmp_path / "ensemble-kit.toml").write_text(
        '[data]\nclasses = ["benign", "in situ, DCIS"]\nordinal = true\n'
    )
    code, printed = cli(*words)
    assert (code, "benign < in situ, DCIS" in printed) == (0, True)


def test_the_positive_class_is_one_of_the_classes_and_is_stored() -> None:
    manifest = with_class_order(made("malignant", "normal"), positive="malignant")
    assert manifest.positive == manifest.most_severe == "malignant"
    assert Manifest(manifest.table, **manifest.about()).positive == "malignant"
    assert "positive" not in made("malignant", "normal").about()
    with pytest.raises(DataError) as refused:
        with_class_order(made("malignant", "normal"), positive="malignent")
    assert "malignent" in str(refused.value)
