"""`ensemble-kit predict`: the text of one image, tables, JSON, and exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.evaluation.runs.stored_ensembles import stored_methods
from ensemble_kit.files import read_csv
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.image_caveats import TRAINED

CLI = Callable[..., tuple[int, str]]


@pytest.fixture
def simplex(stacked: Any) -> tuple[object, ...]:
    """The options of the run and method of `ensemble`."""
    return "--run", stacked.run.path, "--method", "simplex", "--device", "cpu"


def test_one_image_is_printed_and_no_file_is_written(
    cli: CLI, simplex: tuple[object, ...], ensemble: Ensemble, slides: Path, tmp_path: Path
) -> None:
    image = slides / "benign" / "P00_0.png"
    code, printed = cli("predict", image, *simplex)
    one = ensemble.predict_all(image)
    assert code == 0
    assert f"Decision: {(one.decisions or ())[0]}" in printed
    assert f"Predicted: {one.classes[0]}" in printed
    for c, name in enumerate(ensemble.class_names):
        assert f"{name}" in printed
        assert f"{one.proba[0, c]:.3f}" in printed
    assert all(name in printed for name in ensemble.member_names)
    assert "Prediction set (80 %" in printed
    assert TRAINED in printed
    assert not list(tmp_path.iterdir())


def test_a_decision_shows_its_probability_and_threshold(
    cli: CLI, simplex: tuple[object, ...], ensemble: Ensemble, slides: Path
) -> None:
    images = sorted((slides / "malignant").iterdir())
    found = ensemble.predict_all(images)
    i = next(i for i, one in enumerate(found.decisions or ()) if one != "refer")
    _, printed = cli("predict", images[i], *simplex)
    line = next(one for one in printed.splitlines() if one.startswith("Decision"))
    decision = ensemble.stored.decision
    assert decision is not None
    target, point = decision.target, decision.points["image"]
    assert f"{found.proba[i, target]:.3f}" in line
    assert f"{point.threshold:.3f}" in line


def test_without_an_operating_point_the_class_is_printed_first(
    cli: CLI, stacked: Any, slides: Path
) -> None:
    code, printed = cli("predict", slides / "benign" / "P00_0.png", "--run", stacked.run.path, "--method", "vote")  # fmt: skip
    assert code == 0
    assert str(stacked.run.path.as_posix()) in printed.splitlines()[0]
    assert printed.splitlines()[2].startswith("Predicted: ")
    assert printed.count("--method simplex") == 2
    assert "conformal --method vote" in printed
    assert "operating-point --method vote" in printed


def test_vote_shares_are_not_called_probabilities(cli: CLI, stacked: Any, slides: Path) -> None:
    image = slides / "benign" / "P00_0.png"
    for method, shares in (("vote", True), ("mean", False)):
        _, printed = cli("predict", image, "--run", stacked.run.path, "--method", method)
        assert ("Probabilities:" in printed) is not shares
        _, printed = cli("predict", image, "--run", stacked.run.path, "--method", method, "--json")
        assert json.loads(printed)["gives_vote_shares"] is shares


def test_missing_sets_and_decisions_come_with_commands(
    cli: CLI, trained: Any, slides: Path
) -> None:
    _, printed = cli("predict", slides / "benign" / "P00_0.png", "--run", trained.run.path)
    assert "ensemble-kit conformal --method mean" in printed
    assert "ensemble-kit operating-point" in printed


def test_results_older_than_the_networks_are_refused(
    cli: CLI, stacked: Any, slides: Path, tmp_path: Path
) -> None:
    own = stacked.copied_to(tmp_path / "run")
    for name in stored_methods(own.run):
        path = own.run.ensemble_dir(name) / "metrics.json"
        metrics = read_checked(path, advice="")
        metrics["made_of"]["folds"] = "other"
        write_checked(path, metrics)
    code, printed = cli("predict", slides / "benign" / "P00_0.png", "--run", own.run.path)
    assert code == 7
    assert "stack --method all" in printed
    code, printed = cli("report", "--run", own.run.path)
    assert code == 0
    assert f"{len(stored_methods(own.run))} methods" in printed


def test_an_unknown_method_is_named_once(cli: CLI, stacked: Any, slides: Path) -> None:
    image = slides / "benign" / "P00_0.png"
    _, printed = cli("predict", image, "--run", stacked.run.path, "--method", "zzz")
    assert printed.count("zzz") == printed.count("simplex") == printed.count("mean") == 1
    code, printed = cli("conformal", "--run", stacked.run.path, "--method", "vot")
    assert code == 2
    assert "'vote'" in printed
    assert "stack --method vot" not in printed


def test_image_root_is_the_folder_of_a_tables_paths(
    cli: CLI, simplex: tuple[object, ...], slides: Path, tmp_path: Path
) -> None:
    (tmp_path / "new.csv").write_text("path\nbenign/P00_0.png\nmalignant/P10_0.png\n")
    code, printed = cli("predict", "new.csv", "--image-root", slides, *simplex)
    assert code == 0, printed
    assert read_csv(tmp_path / "predictions.csv")["error"].tolist() == ["", ""]
    for words, named in ((("new.csv", "--image-root", "nowhere"), "nowhere"), ((slides, "--image-root", slides), "--image-root")):  # fmt: skip
        code, printed = cli("predict", *words, *simplex)
        assert code in (2, 3)
        assert named in printed


def test_a_folder_is_predicted_with_the_latest_run(
    cli: CLI, stacked: Any, slides: Path, tmp_path: Path
) -> None:
    shutil.copytree(stacked.run.path, tmp_path / "checkpoints" / "slides")
    code, printed = cli("predict", slides, "--group-pattern", r"(P\d+)_")
    assert code == 0, printed
    assert len(read_csv(tmp_path / "predictions-per-group.csv")) == 20
    assert "80 images" in printed
    assert "the latest" in printed.splitlines()[0]
    assert len(read_csv(tmp_path / "predictions.csv")) == 80
    assert "predictions-per-group.csv" in printed


def test_json_of_images_and_of_a_written_table(
    cli: CLI, simplex: tuple[object, ...], ensemble: Ensemble, slides: Path, tmp_path: Path
) -> None:
    good = [slides / "benign" / f"P00_{i}.png" for i in range(2)]
    (tmp_path / "text.png").write_text("no image")
    code, printed = cli("predict", *good, tmp_path / "text.png", "--json", *simplex)
    found = json.loads(printed)
    assert code == 0
    assert [one["image"] for one in found["images"]] == list(map(str, good))
    assert [one["image"] for one in found["errors"]] == [str(tmp_path / "text.png")]
    for one, record in zip(ensemble.predict_all(good).records(), found["images"], strict=True):
        assert (record["predicted"], record["votes"], record["set"], record["decision"]) == (
            one["predicted"], one["votes"], one["set"], one["decision"],
        )  # fmt: skip
        assert record["probabilities"] == pytest.approx(one["probabilities"], abs=1e-6)
    code, printed = cli("predict", *good, "--json", "--out", "o/p.csv", *simplex)
    assert (code, json.loads(printed)["n_images"]) == (0, 2)
    written, table = json.loads(printed), read_csv(tmp_path / "o" / "p.csv")
    assert len(table) == 2
    votes = table[[c for c in table if c.startswith("vote_")]]
    assert written["n_disputed"] == int((votes.nunique(axis=1) > 1).sum())
    assert written["n_by_class"] == table["predicted"].value_counts().to_dict()
    assert written["n_by_decision"] == table["decision"].value_counts().to_dict()


def test_json_is_valid_if_the_first_block_is_unreadable(
    cli: CLI, simplex: tuple[object, ...], slides: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from ensemble_kit.inference import tile_blocks

    monkeypatch.setattr(tile_blocks, "BLOCK", 1)
    (tmp_path / "text.png").write_text("no image")
    good = [slides / "benign" / f"P00_{i}.png" for i in range(2)]
    code, printed = cli("predict", tmp_path / "text.png", *good, "--json", *simplex)
    assert code == 0
    assert len(json.loads(printed)["images"]) == 2


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("text.png",), 3, "text.png"),
        (("text.png", "--json"), 3, "text.png"),
        (("nowhere.png",), 3, "nowhere.png"),
        (("slide.svs",), 3, "slide.svs"),
        (("good.png", "text.png", "--on-bad-image", "fail"), 3, "text.png"),
        (("good.png", "--out", "good.png"), 2, "good.png"),
        (("good.png", "--method", "simplx"), 2, "simplx"),
        (("good.png", "--run", "nowhere"), 3, "nowhere"),
        (("good.png", "--device", "cuda:99"), 4, "cuda:99"),
        ((), 2, "IMAGES"),
    ],
)
def test_an_error_has_its_exit_code_and_names_the_value(
    cli: CLI, stacked: Any, slides: Path, tmp_path: Path, words: tuple[str, ...], code: int, named: str
) -> None:  # fmt: skip
    shutil.copy(slides / "benign" / "P00_0.png", tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "slide.svs").write_text("x")
    run = () if "--run" in words else ("--run", stacked.run.path)
    got, printed = cli("predict", *words, *run)
    assert got == code, printed
    assert named in printed
    assert not list(tmp_path.glob("*.part*"))


def test_escape_codes_in_a_name_are_not_printed(
    cli: CLI, simplex: tuple[object, ...], slides: Path, tmp_path: Path
) -> None:
    shutil.copy(slides / "benign" / "P00_0.png", tmp_path / "a\x1b]0;b.png")
    code, printed = cli("predict", "a\x1b]0;b.png", *simplex)
    assert code == 0
    assert "\x1b" not in printed
