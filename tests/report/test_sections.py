"""Sections of the report: their values are those of the run's files."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.checked import write_checked
from ensemble_kit.evaluation.diversity.member_study import study_members
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.files import digest_file
from ensemble_kit.folds import make_folds
from ensemble_kit.report.content import Content, gather
from ensemble_kit.report.leakage import leakage_sentence
from ensemble_kit.report.method_curves import calibration_error, errors_after_referral
from ensemble_kit.report.page import with_code, write_report
from ensemble_kit.report.sections.cost import cost_section, member_costs
from ensemble_kit.report.sections.curves import calibration_section, referral_section
from ensemble_kit.report.sections.explanations import explanations_section
from ensemble_kit.report.sections.members import members_section, training_section
from ensemble_kit.report.sections.provenance import provenance_section
from ensemble_kit.report.sections.results import results_section
from ensemble_kit.report.sections.use import ordinal_section, point_section, sets_section
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_run

pytestmark = pytest.mark.slow

QUICK = Protocol(n_resamples=20)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Content:
    run = toy_run(tmp_path_factory.mktemp("toy") / "run")
    stack_run(run, ["vote", "temperature"], protocol=QUICK)
    return gather(run)


@pytest.fixture(scope="module")
def content(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Content:
    run = trained.copied_to(tmp_path_factory.mktemp("sections") / "run").run
    stack_run(run, ["vote"], protocol=QUICK)
    return gather(run)


# -- members and costs -----------------------------------------------------------------------


def test_members_are_described_by_the_sentence_of_diversity(toy: Content) -> None:
    study = study_members(toy.oof, QUICK.for_data(toy.manifest))
    assert study.sentence in members_section(toy).words[0]


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_a_run_of_one_member_has_nothing_to_compare(tmp_path: Path, method: str) -> None:
    run = toy_run(tmp_path / "run", n_members=1, n_samples=120)
    stack_run(run, [method], protocol=QUICK)
    section = members_section(gather(run))
    assert not section.drawings
    assert [row[0].text for row in section.sheets[0].rows] == ["member0"]
    results = results_section(gather(run))
    assert [row[0].text for row in results.sheets[0].shown_rows] == ["best-member"]
    assert write_report(run).is_file()


def test_costs_are_those_of_the_records(content: Content) -> None:
    costs = member_costs(content)
    for member, one in content.trainings.items():
        seconds = [record["seconds"] for record in one.records.values()]
        assert costs["train_seconds"][member] == pytest.approx(sum(seconds))
    assert costs["parameters"]["all members"] == pytest.approx(
        sum(costs["parameters"][m] for m in content.oof.member_names)
    )
    assert "memory_mib" in costs
    assert costs["memory_mib"]["tiny_cnn"] > 10


def test_unknown_costs_are_reported_as_unknown(toy: Content) -> None:
    section = cost_section(toy)
    assert not section.drawings
    assert "--member-costs" in section.words[0]


def test_the_training_section_reports_whether_an_epoch_was_selected(
    content: Content, toy: Content
) -> None:
    section = training_section(content)
    assert section is not None
    assert "6 networks: 2 members" in section.words[0]
    assert "no epoch was selected" in section.words[0]
    assert training_section(toy) is None


# -- probabilities ---------------------------------------------------------------------------


def test_the_error_rate_after_referral_is_reported(toy: Content) -> None:
    predictions = toy.predictions["temperature", "test"]
    before, share, after = errors_after_referral(predictions, 0.1)
    confidence = predictions.proba[np.arange(len(predictions.labels)), predictions.predicted]
    decided = np.argsort(-confidence)[: round((1 - share) * len(confidence))]
    wrong = predictions.predicted != predictions.labels
    assert before == pytest.approx(wrong.mean())
    assert after == pytest.approx(wrong[decided].mean())
    assert share <= 0.1
    own, share_of, rest = errors_after_referral(toy.predictions[toy.chosen, "test"], 0.1)
    if share_of >= 0.05:
        assert f"from {own:.3f} to {rest:.3f}" in referral_section(toy).words[0]


def test_calibration_before_and_after_are_those_of_mean_and_temperature(toy: Content) -> None:
    printed = calibration_section(toy).words[0]
    if "temperature" in toy.fell_back:
        assert "replaced" in printed
    else:
        for method in ("mean", "temperature"):
            assert f"{calibration_error(toy.predictions[method, 'test']):.3f}" in printed


# -- stored decisions ------------------------------------------------------------------------


def test_without_stored_decisions_the_commands_are_named(toy: Content) -> None:
    assert "ensemble-kit operating-point" in point_section(toy).words[0]
    assert "ensemble-kit conformal" in sets_section(toy).words[0]


def test_ordinal_errors_are_shares_by_distance(toy: Content) -> None:
    assert ordinal_section(toy) is None
    ordinal = dataclasses.replace(toy, manifest=dataclasses.replace(toy.manifest, ordinal=True))
    section = ordinal_section(ordinal)
    assert section is not None
    predictions = toy.predictions[toy.chosen, "test"]
    right = (predictions.predicted == predictions.labels).mean()
    assert f"{right:.0%} of images" in section.words[0]


# -- data and leakage ------------------------------------------------------------------------


def test_a_clean_split_shows_no_leakage(content: Content) -> None:
    printed = leakage_sentence(content)
    assert f"none of {content.manifest.n_groups} groups" in printed
    assert f"No two of {len(content.manifest)} files" in printed


def test_identical_files_and_groups_on_two_sides_are_counted(content: Content) -> None:
    table = content.manifest.table.copy()
    train, test = table.index[table["split"] == "train"], table.index[table["split"] == "test"]
    table.loc[test[0], "sha256"] = table.loc[train[0], "sha256"]
    table.loc[test[1], "group"] = table.loc[train[1], "group"]
    manifest = dataclasses.replace(content.manifest, table=table, split_by="image")
    printed = leakage_sentence(dataclasses.replace(content, manifest=manifest))
    assert "1 file " in printed
    assert f"1 of {manifest.n_groups} groups" in printed


def test_folds_by_image_are_leakage_of_groups(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run")
    content = gather(run)
    manifest = dataclasses.replace(content.manifest, split_by="image")
    folds = make_folds(manifest, 4, by="image")
    by_image = dataclasses.replace(content, manifest=manifest, folds=folds)
    assert re.search(r"\b[1-9]\d* of 40 patients", leakage_sentence(by_image))


# -- provenance ------------------------------------------------------------------------------


def test_the_commands_reproduce_training_and_stack(content: Content) -> None:
    record = {**content.record, "command": ["__main__.py", "train-members", "--data", "a b"]}
    found = provenance_section(dataclasses.replace(content, record=record)).commands
    run = content.run.path
    assert found[0] == "ensemble-kit train-members --data 'a b'"
    assert found[1] == f"ensemble-kit stack --method vote --metric balanced_accuracy --run {run}"
    assert found[-1] == f"ensemble-kit report --run {run}"


def test_digests_are_those_of_the_run(content: Content) -> None:
    (sheet,) = [s for s in provenance_section(content).all_sheets if s.name == "digests"]
    shown = {row[0].text: row[1].text for row in sheet.rows}
    assert shown["manifest"] == content.manifest.digest
    made = content.stored["vote"]["made_of"]["members"]["tiny_cnn"]
    assert shown["tiny_cnn, oof"] == made["oof"]


# -- maps ------------------------------------------------------------------------------------


def stored_maps(run: Run, *, method: str, **more: Any) -> Path:
    """A folder as `explain` writes it, with one image."""
    folder = run.path / "explanations" / "worst"
    folder.mkdir(parents=True)
    names = ("contact-sheet-1.gradcam.png", "panel.png", "faithfulness.gradcam.png")
    for name in names:
        Image.new("RGB", (40, 30), "red").save(folder / name)
    own = {"panel": "panel.png", "sentence": "All 2 members predict <b>.", "class": "b"}
    index = {
        "kind": "worst", "method": method, "maps": ["gradcam"], "members": ["a", "b"],
        "images": [{"image": "i.png", "truth": "a", "predicted": "b", "maps": {"gradcam": own}},
                   {"image": "bad.png", "error": "cannot be read"}],
        "sheets": {"gradcam": [names[0]]}, "notes": ["A note."],
        "faithfulness": {"gradcam": {"deletion": {"sentence": "Deletion: better."}, "figure": names[2]}},
        "files": {name: digest_file(folder / name) for name in names}, **more,
    }  # fmt: skip
    write_checked(folder / "index.json", index)
    return folder


def test_maps_of_explain_are_a_gallery_with_their_faithfulness(
    toy: Content, tmp_path: Path
) -> None:
    run = toy_run(tmp_path / "run", n_samples=120)
    stack_run(run, ["vote"], protocol=QUICK)
    stored_maps(run, method="vote")
    section = explanations_section(gather(run))
    assert "for 1 image:" in section.words[0]
    assert section.words[1] == "Deletion: better."
    assert [p.link for p in section.pictures] == [
        "../explanations/worst/contact-sheet-1.gradcam.png",
        "../explanations/worst/faithfulness.gradcam.png",
    ]
    page = write_report(run)
    text = page.read_text(encoding="utf-8")
    assert "All 2 members predict &lt;b&gt;." in text
    for picture in section.pictures:
        assert (page.parent / picture.link).is_file()


def test_maps_of_other_predictions_are_left_out_with_a_caveat(toy: Content, tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_samples=120)
    stack_run(run, ["vote"], protocol=QUICK)
    made = {**gather(run).stored["vote"]["made_of"], "folds": "of other folds"}
    stored_maps(run, method="vote", made_of=made)
    content = gather(run)
    assert content.explanations == ()
    assert any("explanations 'worst'" in note and "the folds changed" in note for note in content.notes)  # fmt: skip


def test_without_maps_the_command_is_named_if_there_are_networks(content: Content, toy: Content) -> None:  # fmt: skip
    assert "ensemble-kit explain" in explanations_section(content).words[0]
    assert "imported" in explanations_section(toy).words[0]


# -- text ------------------------------------------------------------------------------------


def test_text_between_backticks_is_code_and_markup_is_escaped() -> None:
    assert with_code("a `b<c>` <d>") == "a <code>b&lt;c&gt;</code> &lt;d&gt;"
