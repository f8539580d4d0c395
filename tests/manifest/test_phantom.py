"""The phantom: reproducible, marked as synthetic, with scores as published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.files import read_csv, read_json
from ensemble_kit.manifest.layouts.bci import read_bci
from ensemble_kit.manifest.phantom.optics import DAB, EOSIN, HAEMATOXYLIN
from ensemble_kit.manifest.phantom.patients import (
    BCI_COUNTS,
    DEFINITION,
    SCORES,
    draw_patients,
    patients_per_score,
)
from ensemble_kit.manifest.phantom.write import draw_pair, write_phantom
from ensemble_kit.seeding import generator


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(
        tmp_path_factory.mktemp("p") / "phantom", n_patients=15, images_per_patient=2, seed=3
    )


def test_the_bytes_depend_only_on_the_seed(phantom: Path, tmp_path: Path) -> None:
    again = write_phantom(tmp_path / "again", n_patients=15, images_per_patient=2, seed=3)
    files = sorted(p.relative_to(phantom) for p in phantom.rglob("*.png"))
    assert len(files) == 15 * 2 * 3
    assert all((phantom / f).read_bytes() == (again / f).read_bytes() for f in files)
    other = write_phantom(tmp_path / "other", n_patients=15, images_per_patient=2, seed=4)
    assert {p.read_bytes() for p in (phantom / "IHC").rglob("*.png")}.isdisjoint(
        p.read_bytes() for p in (other / "IHC").rglob("*.png")
    )


def test_settings_name_notes_and_files_say_synthetic(phantom: Path) -> None:
    assert read_json(phantom / "phantom.json")["synthetic"] is True
    manifest = read_bci(phantom)
    assert manifest.name.startswith("phantom")
    assert any("Synthetic" in note for note in manifest.notes)
    for file in phantom.rglob("*.png"):
        assert "Synthetic" in Image.open(file).text["Description"]  # type: ignore[attr-defined]


def test_patients_are_the_groups_and_stay_on_one_side(phantom: Path) -> None:
    manifest = read_bci(phantom)
    assert manifest.group_kind == "patient"
    assert (len(manifest), manifest.n_groups) == (30, 15)
    assert manifest.table.groupby("group")["split"].nunique().max() == 1
    assert manifest.table.groupby("group")["label"].nunique().max() == 1
    assert set(manifest.part("test").table["label"]) == set(SCORES)
    assert len(read_csv(phantom / "patients.csv")) == 30


@pytest.mark.parametrize("n", [12, 13, 20, 40, 100, 333])
def test_classes_have_the_proportions_of_bci(n: int) -> None:
    counts = patients_per_score(n)
    assert sum(counts) == n
    assert min(counts) >= 3
    if n >= 100:
        np.testing.assert_allclose(
            np.array(counts) / n, np.array(BCI_COUNTS) / sum(BCI_COUNTS), atol=0.02
        )


def test_scores_follow_the_published_definition() -> None:
    (positive_0, *_), (_, open_1, faint), (_, closed_2, moderate), (_, closed_3, intense) = (
        DEFINITION[s] for s in SCORES
    )
    assert positive_0[1] <= 0.10
    assert open_1[1] < 0.9 <= closed_2[0] <= closed_3[0]
    assert faint[1] < intense[0]
    assert moderate[1] < intense[0]


def test_stain_vectors_are_ruifrok_and_johnstons_unit_vectors() -> None:
    published = [(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)]
    for vector, known in zip((HAEMATOXYLIN, EOSIN, DAB), published, strict=True):
        assert np.linalg.norm(vector) == pytest.approx(1, abs=0.01)
        np.testing.assert_allclose(vector, known, atol=0.01)


def test_the_mask_marks_the_brown_pixels() -> None:
    patient = next(p for p in draw_patients(40) if p.score == "3+")
    _, ihc, mask = draw_pair(patient, 128, generator(0, "x"))
    brown = ihc[:, :, 0].astype(int) - ihc[:, :, 2]
    assert brown[mask > 0].mean() > brown[mask == 0].mean() + 40


def test_more_membrane_is_stained_at_higher_scores() -> None:
    share = {
        score: np.mean(
            [
                draw_pair(p, 64, generator(0, p.name))[2].mean()
                for p in draw_patients(80, seed=1)
                if p.score == score
            ]
        )
        for score in SCORES
    }
    assert share["0"] < share["1+"] < share["2+"] < share["3+"]


def test_a_folder_with_other_content_is_refused(tmp_path: Path, phantom: Path) -> None:
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(DataError):
        write_phantom(tmp_path)
    with pytest.raises(DataError, match=r"phantom\.json"):
        write_phantom(phantom, n_patients=16)
    before = (phantom / "patients.csv").stat().st_mtime_ns
    write_phantom(phantom, n_patients=15, images_per_patient=2, seed=3)
    assert (phantom / "patients.csv").stat().st_mtime_ns == before


def test_fewer_patients_than_scores_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_phantom(tmp_path / "p", n_patients=3)


@pytest.mark.parametrize("n", [4, 7, 11])
def test_a_score_with_fewer_than_three_patients_has_none_in_the_test_part(n: int) -> None:
    patients = draw_patients(n)
    by_score = {s: [p.split for p in patients if p.score == s] for s in SCORES}
    assert len(patients) == n
    assert all(by_score.values())
    assert all(("test" in parts) == (len(parts) >= 3) for parts in by_score.values())
