"""Rows 26, 54, 56: any name of a file, patient, class or folder works or is refused."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from ensemble_kit.arrays import softmax
from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.evaluation.imports.import_predictions import import_predictions
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import Run
from ensemble_kit.tables import strip

Invoke = Callable[..., tuple[int, str]]
Commands = Callable[[Path], dict[str, list[object]]]
FORMULAS = ("=cmd|' /C calc'!A0", "+1", "-2", "@x", "\t=1")
ESCAPE = "\x1b]0;owned\x07"

# Without shrinking, which can take minutes.
QUICK = (Phase.explicit, Phase.generate)

# -- row 26 --------------------------------------------------------------------------------

BYTES = st.binary(min_size=1, max_size=251).map(
    lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")
)
NAMES = st.one_of(BYTES, st.text(min_size=1, max_size=60).map(lambda t: os.fsencode(cleaned(t))))


def cleaned(text: str) -> str:
    return text.encode("utf-8", "ignore").decode().replace("/", "_").replace("\0", "_") or "_"


def done_or_refused(work: Callable[[], Any]) -> Any:
    """The result of `work`. None if it is refused with a printable message."""
    error = None
    try:
        return work()
    except EnsembleKitError as refusal:
        error = refusal
    assert error.exit_code == 3
    assert str(error).isprintable()
    return None


@settings(max_examples=40, deadline=None, phases=QUICK)
@given(NAMES)
@example(b"a\nb")
@example(b'"')
@example(b"'")
@example("\u202egnp".encode())
@example(b"\xff\xfe")
@example(b"n" * 251)
@example(b"..")
@example(b"1.PNG")
@example(" \u00e9".encode())
@example(" e\u0301".encode())
def test_row_26_an_image_with_any_name_is_read_under_this_name_or_refused(name: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "slides"
        for path in (root / "a" / os.fsdecode(name + b".png"), root / "b/1.png", root / "a/1.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        manifest = done_or_refused(lambda: Manifest.from_folders(root))
        if manifest is None:
            return
        there = {p.relative_to(root).as_posix() for p in root.rglob("*.png")}
        hidden = name.startswith(b".")
        assert there - set(manifest.table["path"]) <= ({f"a/{os.fsdecode(name)}.png"} if hidden else set())  # fmt: skip
        assert set(manifest.table["path"]) <= there
        assert len(set(manifest.sample_ids)) == len(manifest)
        manifest.write(Path(folder) / "m.csv")
        back = Manifest.read(Path(folder) / "m.csv", **manifest.about())
        assert back.digest == manifest.digest


@settings(max_examples=20, deadline=None, phases=QUICK)
@given(NAMES)
@example(b"A")
@example(b"\xff")
@example(b"a\nb")
@example(b"n" * 251)
def test_row_26_a_class_folder_with_any_name_gives_this_class_or_is_refused(name: bytes) -> None:
    called = os.fsdecode(name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "slides"
        for label in ("a", "b", called):
            if label not in {".", ".."}:
                (root / label).mkdir(parents=True, exist_ok=True)
                (root / label / "1.png").touch()
        manifest = done_or_refused(lambda: Manifest.from_folders(root))
        if manifest is not None:
            of = dict(zip(manifest.table["path"], manifest.table["label"], strict=True))
            assert all(label == path.split("/")[0] for path, label in of.items())
            assert called.startswith(".") or called in manifest.class_names


def test_row_26_names_that_differ_only_in_case_are_two_images(tmp_path: Path) -> None:
    for name in ("a/s.png", "a/S.png", "b/s.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if len(list((tmp_path / "a").iterdir())) == 1:
        pytest.skip("this file system ignores case")
    assert Manifest.from_folders(tmp_path).sample_ids.tolist() == ["a/S.png", "a/s.png", "b/s.png"]


@settings(max_examples=7, deadline=None, phases=QUICK)
@given(st.lists(st.text(min_size=1, max_size=12).map(cleaned), min_size=8, max_size=8, unique=True))
@example(["a", "A", "\u202eb", "'", '"', "a\nb", "=1+1", "\x1b[2J"])
@example(["a\rb", "a\nb", "a\r\nb", "\rc", "d\r", "e", "f", "g"])
@example(["a", "a ", " a", "'a", "'=a", "=a", "a,b", "a;b"])
def test_row_26_any_sample_ids_are_read_back_unchanged_or_refused(ids: list[str]) -> None:
    labels = ["x", "y"] * 4
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        write(
            at / "labels.csv", ["sample_id", "label", "group"], zip(ids, labels, ids, strict=True)
        )
        chances = [0.05 + 0.1 * n for n in range(8)]
        write(
            at / "m.csv",
            ["sample_id", "x", "y"],
            [(i, p, 1 - p) for i, p in zip(ids, chances, strict=True)],
        )
        files = {"m": at / "m.csv"}
        if not done_or_refused(
            lambda: import_predictions(Run(at / "run"), at / "labels.csv", files)
        ):
            return
        table = Run(at / "run").predictions("oof")
        # White space at the ends is not part of a name.
        want = [strip(i) for i in ids]
        got = dict(zip(table.sample_ids.tolist(), softmax(table.logits[:, 0])[:, 0], strict=True))
        assert got == pytest.approx(dict(zip(want, chances, strict=True)), abs=1e-5)
        labels_of = dict(zip(table.sample_ids.tolist(), table.labels.tolist(), strict=True))
        assert labels_of == dict(zip(want, [0, 1] * 4, strict=True))


def write(path: Path, header: list[str], rows: object) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])  # type: ignore[misc]


# -- rows 54 and 56 ------------------------------------------------------------------------


class Named(NamedTuple):
    run: Path
    class_names: tuple[str, ...]
    ends: dict[str, tuple[int, str]]


def import_named(
    folder: Path, invoke: Invoke, *, ids: list[str], groups: list[str], names: list[str]
) -> tuple[int, str]:
    """`import-predictions` of two members over 24 rows with names made from the given ones."""
    n = 24
    ids = [f"{ids[i % len(ids)]}{i}" for i in range(n)]
    groups = [f"{groups[i % len(groups)]}{i // 2}" for i in range(n)]
    labels = [names[(i // 2) % 2] for i in range(n)]
    parts = ["test" if i >= 18 else "train" for i in range(n)]
    folds = [(i // 2) % 3 if i < 18 else "" for i in range(n)]
    folder.mkdir(exist_ok=True)
    rows = zip(ids, labels, groups, parts, folds, strict=True)
    write(folder / "labels.csv", ["sample_id", "label", "group", "split", "fold"], rows)
    for member, sure in (("m1", 0.3), ("m2", 0.2)):
        right = [0.5 + sure * (-1 if i % 5 == 0 else 1) for i in range(n)]
        chances = [
            (i, p, 1 - p) if lab == names[0] else (i, 1 - p, p)
            for i, p, lab in zip(ids, right, labels, strict=True)
        ]
        write(folder / f"{member}.csv", ["sample_id", *names], chances)
    words = [f"{m}={folder / m}.csv" for m in ("m1", "m2")]
    return invoke(
        "import-predictions", *words, "--labels", folder / "labels.csv", "--run", folder / "run"
    )


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, invoke: Invoke, commands: Commands) -> Named:
    """A run after every command. Every name in it has a formula and an escape code."""
    folder = tmp_path_factory.mktemp("named") / f"=f{ESCAPE}"
    called = {"ids": [f + ESCAPE for f in FORMULAS], "groups": [f"{c}P{ESCAPE}" for c in "=+-@"]}
    names = [f"=1+1{ESCAPE}b", f"@x{ESCAPE}m"]
    ends = {"import-predictions": import_named(folder, invoke, names=names, **called)}
    assert ends["import-predictions"][0] == 0, ends
    with pytest.MonkeyPatch.context() as patch:
        # Drawing takes most of the time and is not tested here.
        patch.setattr("ensemble_kit.plots.style.svg_bytes", lambda figure: b"<svg/>")
        patch.setattr("ensemble_kit.plots.style.png_bytes", lambda figure: b"")
        for command, words in commands(folder / "run").items():
            if command == "compare":
                shutil.copytree(folder / "run", folder / "other")
            ends[command] = invoke(*[names[1] if word == "class1" else word for word in words])
    # Error messages also contain the names.
    ends["no run"] = invoke("conformal", "--run", folder / "none")
    ends["no class"] = invoke(*commands(folder / "run")["operating-point"])
    codes = {name: code for name, (code, _) in ends.items() if code}
    assert codes == {"no run": 3, "no class": 2}, ends
    return Named(folder / "run", tuple(names), ends)


def test_row_54_no_table_of_a_run_has_a_formula(named: Named) -> None:
    tables = sorted(named.run.rglob("*.csv"))
    assert {p.name for p in tables} >= {
        "manifest.csv", "folds.csv", "predictions.csv", "sets.csv", "members.csv", "classes.csv"
    }  # fmt: skip
    formulas = {}
    for path in tables:
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        bad = [
            c for c in cells if c.startswith(("=", "+", "-", "@", "\t", "\r")) and not is_number(c)
        ]
        if bad:
            formulas[path.relative_to(named.run).as_posix()] = bad[0]
    assert formulas == {}
    # Reading the run gives the names without the guards.
    table = Run(named.run).predictions("oof")
    assert table.class_names == named.class_names
    assert {i.rstrip("0123456789") for i in table.sample_ids} == {
        strip(f) + ESCAPE for f in FORMULAS
    }


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_row_56_escape_codes_in_names_are_not_printed(named: Named) -> None:
    for command, (code, printed) in named.ends.items():
        sent = {c for c in printed if c < " " and c not in "\n\t"}
        assert not sent, f"{command} ({code}): {printed!r}"
