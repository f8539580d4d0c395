"""Images of the cells of the confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.report.content import Content, gather
from ensemble_kit.report.method_curves import confusion_counts
from ensemble_kit.report.sections import errors
from ensemble_kit.report.sections.errors import errors_section, errors_sheet
from ensemble_kit.report.sections.section import CellImages
from ensemble_kit.testing import toy_run

QUICK = Protocol(n_resamples=20)


@pytest.fixture(scope="module")
def content(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Content:
    run = trained.copied_to(tmp_path_factory.mktemp("cells") / "run").run
    stack_run(run, ["vote"], protocol=QUICK)
    return gather(run)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Three classes, and no image files."""
    run = toy_run(tmp_path_factory.mktemp("toy") / "run")
    stack_run(run, ["mean-logits"], protocol=QUICK)
    return gather(run)


def pairs(content: Content, cells: tuple[CellImages, ...]) -> Iterator[tuple[CellImages, int, int]]:
    for cell in cells:
        true, predicted = cell.key.removeprefix("cell-").split("-")
        yield cell, int(true), int(predicted)


def test_each_number_links_to_the_images_of_its_cell(toy: Content) -> None:
    section = errors_section(toy)
    predictions = toy.predictions[toy.chosen, toy.part]
    counts = confusion_counts(predictions)
    assert {c.key for c in section.cells} == {f"cell-{a}-{b}" for a, b in np.argwhere(counts)}
    for cell, true, predicted in pairs(toy, section.cells):
        right = (predictions.labels == true) & (predictions.predicted == predicted)
        shown = [picture.words[0] for picture in cell.pictures]
        assert set(shown) <= set(predictions.ids[right])
        assert len(shown) == min(counts[true, predicted], errors.PER_CELL)
    (matrix,) = section.sheets
    links = [one.link for row in matrix.rows for one in row[1:] if one.text != "0"]
    assert sorted(links) == sorted(c.key for c in section.cells)


def test_the_most_certain_error_and_the_least_certain_correct_image_are_first(toy: Content) -> None:
    predictions = toy.predictions[toy.chosen, toy.part]
    place = {name: i for i, name in enumerate(predictions.ids)}
    for cell, true, predicted in pairs(toy, errors_section(toy).cells):
        confidence = [predictions.proba[place[p.words[0]], predicted] for p in cell.pictures]
        assert confidence == sorted(confidence, reverse=true != predicted)


def test_images_that_can_be_read_are_embedded(content: Content) -> None:
    cells = errors_section(content).cells
    sources = [picture.source for cell in cells for picture in cell.pictures]
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)


def test_without_image_files_images_are_shown_by_name(toy: Content) -> None:
    section = errors_section(toy)
    assert not any(picture.source for cell in section.cells for picture in cell.pictures)
    assert any("cannot be read" in words for words in section.words)


def test_a_damaged_image_is_named_without_a_picture(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensemble_kit.report.thumbnails import Thumbnails

    (tmp_path / "a").mkdir()
    for name in content.manifest.table["path"]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"no image")
    import dataclasses

    pictures = Thumbnails(dataclasses.replace(content.manifest, root=tmp_path))
    assert pictures.of(str(content.manifest.sample_ids[0])) == ""
    assert pictures.n_unreadable == 1


def test_the_page_holds_a_limited_number_of_images(
    toy: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "PER_PAGE", 5)
    section = errors_section(toy)
    assert sum(len(cell.pictures) for cell in section.cells) == 5
    # Errors are before correct predictions.
    first = section.cells[0].key.split("-")
    assert first[1] != first[2]


def test_every_error_is_in_the_table_of_errors(toy: Content) -> None:
    predictions = toy.predictions[toy.chosen, toy.part]
    wrong = predictions.ids[predictions.predicted != predictions.labels]
    sheet = errors_sheet(toy)
    assert sorted(row[0].text for row in sheet.rows) == sorted(wrong)
    confidence = [float(row[-1].text) for row in sheet.rows]
    assert confidence == sorted(confidence, reverse=True)


def test_a_pair_of_images_is_one_picture_twice_as_wide() -> None:
    import base64
    import io

    from ensemble_kit.report.thumbnails import SIDE, data_uri

    one = np.zeros((50, 200, 3), dtype=np.uint8)
    found = Image.open(io.BytesIO(base64.b64decode(data_uri([one, one]).partition(",")[2])))
    assert found.size == (2 * SIDE, SIDE // 4)
