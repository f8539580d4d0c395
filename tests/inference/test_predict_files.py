"""Tables of predictions: continuing after a kill, unreadable images, pooled patients."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.errors import DataError, IntegrityError, RunLockedError
from ensemble_kit.files import read_csv
from ensemble_kit.inference import ensemble as ensemble_module
from ensemble_kit.inference import tile_blocks
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.find_images import find_sources
from ensemble_kit.inference.predict_files import Written, predict_files
from ensemble_kit.inference.prediction_file import part_of, record_of

PATIENT = r"(P\d+)_"
N_IMAGES, BLOCK = 80, 16


class KilledError(Exception):
    """Simulates a killed process."""


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_blocks, "BLOCK", BLOCK)


def write(
    ensemble: Ensemble, folder: Path, out: Path, *, stop_after: int | None = None, **options: str
) -> Written:
    """Predict a folder. `stop_after` kills it after that number of images."""

    def stop(done: int, total: int) -> None:
        if stop_after is not None and done >= stop_after:
            raise KilledError

    sources = find_sources([str(folder)], group_pattern=PATIENT).sources
    return predict_files(ensemble, sources, out, progress=stop, **options)


@pytest.fixture(scope="session")
def undisturbed(ensemble: Ensemble, slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of all slides, from one uninterrupted call in blocks of 16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_blocks, "BLOCK", BLOCK)
        out = tmp_path_factory.mktemp("undisturbed") / "p.csv"
        write(ensemble, slides, out)
    return out


def test_a_table_has_one_row_per_image_in_order(
    ensemble: Ensemble, slides: Path, undisturbed: Path
) -> None:
    table = read_csv(undisturbed)
    sources = find_sources([str(slides)]).sources
    assert table["image"].tolist() == [source.name for source in sources]
    found = ensemble.predict_all(table["image"].tolist())
    assert table["predicted"].tolist() == found.classes.tolist()
    assert table["decision"].tolist() == list(found.decisions or ())
    assert table["vote_tiny_cnn"].tolist() == found.votes[:, 0].tolist()
    proba = table[[f"p_{c}" for c in ensemble.class_names]].astype(float).to_numpy()
    np.testing.assert_allclose(proba, found.proba, atol=1e-6)
    assert set(table["error"]) == {""}
    assert sorted(p.name for p in undisturbed.parent.iterdir()) == ["p-per-group.csv", "p.csv"]


def test_a_prediction_killed_three_times_gives_the_same_bytes(
    ensemble: Ensemble, slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    for stop_after in (16, 48, 80):
        with pytest.raises(KilledError):
            write(ensemble, slides, out, stop_after=stop_after)
        assert not out.exists()
    done = write(ensemble, slides, out)
    assert (done.n_images, done.n_before) == (N_IMAGES, N_IMAGES)
    assert out.read_bytes() == undisturbed.read_bytes()
    groups = undisturbed.with_name("p-per-group.csv").read_bytes()
    assert out.with_name("p-per-group.csv").read_bytes() == groups
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p-per-group.csv", "p.csv"]


@pytest.mark.parametrize("n_torn", [0, 1, 50_000])
def test_only_an_incomplete_block_is_predicted_again(
    ensemble: Ensemble,
    slides: Path,
    undisturbed: Path,
    tmp_path: Path,
    n_torn: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "p.csv"
    with pytest.raises(KilledError):
        write(ensemble, slides, out, stop_after=48)
    with part_of(out).open("ab") as file:  # rows of a killed block
        file.write(b"x" * n_torn)
    blocks = []
    real = ensemble_module.tile_block

    def counted(*arguments: object) -> object:
        blocks.append(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ensemble_module, "tile_block", counted)
    assert write(ensemble, slides, out).n_before == 48
    assert len(blocks) == 2
    assert out.read_bytes() == undisturbed.read_bytes()


def test_a_kill_before_the_first_record_starts_from_the_beginning(
    ensemble: Ensemble, slides: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    part_of(out).write_text("image,pre")
    write(ensemble, slides, out)
    assert out.read_bytes() == undisturbed.read_bytes()


def test_changed_rows_of_an_unfinished_table_are_refused(
    ensemble: Ensemble, slides: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    with pytest.raises(KilledError):
        write(ensemble, slides, out, stop_after=32)
    begun = part_of(out).read_bytes()
    for damaged in (begun.replace(b"benign", b"bening", 1), begun[:-9]):
        part_of(out).write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"p\.csv\.part"):
            write(ensemble, slides, out)


def test_a_table_started_with_other_images_is_refused(
    ensemble: Ensemble, paint: Callable[..., Path], tmp_path: Path
) -> None:
    folder, out = paint(tmp_path / "few", n_patients=5), tmp_path / "p.csv"
    with pytest.raises(KilledError):
        write(ensemble, folder, out, stop_after=16)
    shutil.copy(folder / "benign" / "P00_1.png", folder / "benign" / "P00_0.png")
    with pytest.raises(DataError, match=re.escape(str(part_of(out)))):
        write(ensemble, folder, out)
    part_of(out).unlink()
    record_of(out).unlink()
    assert write(ensemble, folder, out).n_images == 40


def test_only_one_process_writes_a_table(ensemble: Ensemble, slides: Path, tmp_path: Path) -> None:
    from ensemble_kit.locks import file_lock

    with file_lock(part_of(tmp_path / "p.csv")), pytest.raises(RunLockedError):
        write(ensemble, slides, tmp_path / "p.csv")


def test_other_files_are_not_replaced(ensemble: Ensemble, slides: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n")
    with pytest.raises(DataError, match=r"labels\.csv"):
        write(ensemble, slides, labels)
    assert labels.read_text() == "path,label\n"
    with pytest.raises(DataError):
        write(ensemble, slides, tmp_path)


# -- unreadable images ---------------------------------------------------------------------


@pytest.fixture
def with_bad(paint: Callable[..., Path], tmp_path: Path) -> Path:
    """24 slides of six patients, and four unreadable images."""
    folder = paint(tmp_path / "slides", n_patients=3)
    whole = (folder / "benign" / "P00_0.png").read_bytes()
    (folder / "benign" / "P00_x.png").write_text("no image")
    (folder / "benign" / "P01_x.png").write_bytes(whole[:200])
    (folder / "benign" / "P02_x.png").write_bytes(b"")
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\xc3P\x00\x00\xc3P\x08\x02\x00\x00\x00"
    (folder / "benign" / "P99_x.png").write_bytes(header + whole[29:])  # says 50,000 x 50,000
    return folder


def test_unreadable_images_have_a_row_with_the_reason(
    ensemble: Ensemble, with_bad: Path, tmp_path: Path
) -> None:
    done = write(ensemble, with_bad, tmp_path / "p.csv")
    table = read_csv(done.path)
    bad = table[table["error"] != ""]
    assert [Path(name).name for name in bad["image"]] == [f"P{n}_x.png" for n in ("00", "01", "02", "99")]  # fmt: skip
    assert (done.n_images, done.n_bad, [name for name, _ in done.bad]) == (28, 4, bad["image"].tolist())  # fmt: skip
    assert set(bad["predicted"]) == set(bad["p_benign"]) == {""}
    good = table[table["error"] == ""]
    assert good["predicted"].tolist() == ensemble.predict(good["image"].tolist()).tolist()


def test_a_patient_has_the_mean_of_the_readable_images(
    ensemble: Ensemble, with_bad: Path, tmp_path: Path
) -> None:
    done = write(ensemble, with_bad, tmp_path / "p.csv")
    assert done.per_group is not None
    images, patients = read_csv(done.path), read_csv(done.per_group)
    assert patients["group"].tolist() == ["P00", "P01", "P02", "P03", "P04", "P05", "P99"]
    assert patients["images"].tolist() == ["5", "5", "5", "4", "4", "4", "1"]
    assert patients["unreadable"].tolist() == ["1", "1", "1", "0", "0", "0", "1"]
    assert patients["predicted"].tolist()[-1] == patients["p_benign"].tolist()[-1] == ""
    good = images[images["error"] == ""]
    mean = good["p_benign"].astype(float).groupby(good["group"]).mean()
    np.testing.assert_allclose(patients["p_benign"][:-1].astype(float), mean, atol=1e-9)
    stored = ensemble.stored.decision
    assert stored is not None
    assert ("decision" in patients) == (ensemble.stored.group_kind in stored.points)


def test_fail_stops_at_the_first_block_with_an_unreadable_image(
    ensemble: Ensemble, with_bad: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"P00_x\.png"):
        write(ensemble, with_bad, tmp_path / "p.csv", on_bad_image="fail")
    assert not list(tmp_path.glob("p.csv*"))


def test_only_unreadable_images_are_an_error(ensemble: Ensemble, tmp_path: Path) -> None:
    (tmp_path / "P1_.png").write_text("no image")
    with pytest.raises(DataError, match=r"P1_\.png"):
        write(ensemble, tmp_path, tmp_path / "p.csv")


def test_names_that_are_formulas_are_read_back_unchanged(
    ensemble: Ensemble, paint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = paint(tmp_path / "s", n_patients=1)
    (folder / "benign" / "P00_0.png").rename(tmp_path / "=P00_0.png")
    monkeypatch.chdir(tmp_path)
    sources = find_sources(["=P00_0.png", "s/malignant"]).sources
    predict_files(ensemble, sources, tmp_path / "p.csv")
    assert read_csv(tmp_path / "p.csv")["image"][0] == "=P00_0.png"
    assert "'=P00_0.png" in (tmp_path / "p.csv").read_text()
