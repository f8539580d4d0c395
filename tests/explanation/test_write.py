"""`ensemble-kit explain`: its files, continuing an interrupted call, and reading the files back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble_kit.errors import DataError, IntegrityError, RunLockedError, UsageError
from ensemble_kit.evaluation.diversity.member_study import study_members
from ensemble_kit.explanation.choose_images import ChosenImages, choose_images
from ensemble_kit.explanation.explain import Explanation
from ensemble_kit.explanation.ledger import sentence
from ensemble_kit.explanation.options import ExplainOptions
from ensemble_kit.explanation.stored import list_explanations
from ensemble_kit.explanation.write import write_explanations
from ensemble_kit.files import read_csv
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.sources import file_source
from ensemble_kit.locks import file_lock

pytestmark = pytest.mark.slow

CLI = Callable[..., tuple[int, str]]


def chosen_of(paths: list[Path]) -> ChosenImages:
    sources = tuple(file_source(p.parent, p.name, name=p.as_posix()) for p in paths)
    return ChosenImages("images", sources, ("",) * len(sources))


def test_the_worst_images_have_the_lowest_probability_of_their_true_class(
    explained_run: Any, ensemble: Ensemble
) -> None:
    test = explained_run.manifest.part("test")
    found = choose_images(explained_run.run, ensemble, "worst", 3)
    proba = ensemble.predict_proba([test.root / path for path in test.table["path"]])
    of_truth = proba[np.arange(len(test)), test.labels]
    order = np.argsort(of_truth, kind="stable")[:3]
    assert [one.name for one in found.sources] == test.table["path"].iloc[order].tolist()
    assert list(found.truth) == test.table["label"].iloc[order].tolist()
    assert [one.group for one in found.sources] == test.table["group"].iloc[order].tolist()
    assert found.notes == ()


def test_right_images_are_correct_and_disputed_images_have_the_highest_disagreement(
    explained_run: Any, ensemble: Ensemble
) -> None:
    right = choose_images(explained_run.run, ensemble, "right", 50)
    root = explained_run.manifest.root
    predicted = ensemble.predict([root / one.path for one in right.sources])
    assert predicted.tolist() == list(right.truth)
    disputed = choose_images(explained_run.run, ensemble, "disputed", 50)
    found = ensemble.predict_all([root / one.path for one in disputed.sources])
    assert (np.diff(found.mutual_information) <= 1e-6).all()
    with pytest.raises(UsageError, match="wurst"):
        choose_images(explained_run.run, ensemble, "wurst", 3)


def fake(votes: list[str], maps: np.ndarray) -> Explanation:
    class Predictions:
        member_names = ("a", "b", "c")

    explanation: Any = Explanation.__new__(Explanation)
    predictions: Any = Predictions()
    predictions.votes, predictions.class_names = np.array([votes]), ("benign", "malignant")
    object.__setattr__(explanation, "predictions", predictions)
    object.__setattr__(explanation, "explained", np.array([1]))
    object.__setattr__(explanation, "maps", maps[None])
    return explanation  # type: ignore[no-any-return]


def test_the_ledger_has_the_votes_and_the_overlap_of_the_maps() -> None:
    left, right, none = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.zeros((1, 2))
    split = fake(["malignant", "malignant", "benign"], np.stack([left, left, right]))
    votes, *overlaps = sentence(split, 0).split(". ")
    assert all(word in votes for word in ("2 of 3", "malignant", "c predicts benign"))
    assert [re.findall(r"\d\.\d\d", one) for one in overlaps] == [["0.00"], ["1.00"]]
    united = fake(["malignant"] * 3, np.stack([left, left, none]))
    votes, overlap, empty = sentence(united, 0).split(". ")
    assert "3" in votes
    assert re.findall(r"\d\.\d\d", overlap) == ["1.00"]
    assert " c:" in empty


def test_all_requested_files_are_written_and_listed_with_digests(
    explained_run: Any, ensemble: Ensemble, test_paths: list[Path], tmp_path: Path
) -> None:
    own = explained_run.copied_to(tmp_path / "run")
    chosen = choose_images(own.run, ensemble, "worst", 2)
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros((16, 16), np.uint8)
    mask[:8] = 255
    for one in chosen.sources:
        Image.fromarray(mask).save(masks / Path(one.name).name)
    options = ExplainOptions(
        ("gradcam", "occlusion"),
        "malignant",
        faithfulness=True,
        masks=masks,
        stain="dab",
        geojson=True,
    )
    folder = own.run.path / "explanations" / "worst"
    index = write_explanations(ensemble, chosen, folder, options)
    (stored,) = list_explanations(own.run)
    assert stored.folder == folder
    assert stored.index == json.loads(json.dumps(index))
    first = index["images"][0]
    arrays = np.load(folder / first["maps"]["gradcam"]["arrays"])
    assert arrays.shape == (4, 16, 16)
    assert arrays.dtype == np.float32
    inside = arrays[2, :8].sum() / arrays[2].sum() if arrays[2].sum() else 0.5
    assert first["maps"]["gradcam"]["on_mask"]["ensemble"]["share"] == pytest.approx(
        inside, rel=1e-4
    )
    for kind in ("deletion", "insertion", "pointing", "share", "shuffled"):
        assert kind in index["faithfulness"]["occlusion"]
    for path in (*index["sheets"]["gradcam"], first["picture"], first["stain"]["figure"]):
        assert Image.open(folder / path).size[0] > 100
    regions = json.loads((folder / first["maps"]["gradcam"]["regions"]).read_text())
    assert regions["type"] == "FeatureCollection"
    table = read_csv(folder / "ledger.csv")
    assert table["image"].tolist() == [one.name for one in chosen.sources]
    assert table["ledger_gradcam"].iloc[0] == first["maps"]["gradcam"]["sentence"]
    (folder / first["picture"]).write_bytes(b"other")
    with pytest.raises(IntegrityError, match="pictures") as caught:
        list_explanations(own.run)
    assert caught.value.exit_code == 7


def test_a_second_call_explains_only_missing_images_and_gives_the_same_bytes(
    ensemble: Ensemble, test_paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, folder = chosen_of(test_paths[:2]), tmp_path / "out"
    write_explanations(ensemble, chosen, folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    records = sorted((folder / "records").iterdir())
    records[1].unlink()
    (folder / "index.json").unlink()
    calls: list[int] = []
    from ensemble_kit.explanation import write as module

    real = module.explain_blocks

    def counted(ensemble: Any, sources: Any, *more: Any, **named: Any) -> Any:
        calls.append(len(sources))
        return real(ensemble, sources, *more, **named)

    monkeypatch.setattr(module, "explain_blocks", counted)
    done: list[tuple[int, int]] = []
    write_explanations(ensemble, chosen, folder, progress=lambda *one: done.append(one))
    assert calls == [2]
    assert done == [(1, 2), (2, 2)]
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_other_options_remove_the_files_of_an_earlier_call(
    ensemble: Ensemble, test_paths: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    write_explanations(ensemble, chosen_of(test_paths[:2]), folder)
    index = write_explanations(
        ensemble, chosen_of(test_paths[:1]), folder, ExplainOptions(("layercam",))
    )
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    left = {one for one in found if not one.startswith("records/")} - {"index.json", ".lock"}
    assert left == set(index["files"])


def test_unreadable_images_are_named_and_the_others_explained(
    ensemble: Ensemble, test_paths: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    index = write_explanations(ensemble, chosen_of([bad, test_paths[0]]), tmp_path / "out")
    assert "bad.png" in index["images"][0]["error"]
    assert "maps" in index["images"][1]
    with pytest.raises(DataError, match="bad"):
        write_explanations(ensemble, chosen_of([bad]), tmp_path / "other")


def test_a_locked_folder_is_refused(
    ensemble: Ensemble, test_paths: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with (
        file_lock(folder / ".lock", seconds=0),
        pytest.raises(RunLockedError, match="out") as caught,
    ):
        write_explanations(ensemble, chosen_of(test_paths[:1]), folder)
    assert caught.value.exit_code == 6


def test_the_command_explains_images_of_the_run_and_prints_the_folder(
    explained_run: Any, cli: CLI, tmp_path: Path
) -> None:
    own = explained_run.copied_to(tmp_path / "run")
    code, printed = cli("explain", "--run", own.run.path, "--disputed", 2, "--method", "mean")
    assert code == 0, printed
    assert printed.startswith("2 images ")
    folder = own.run.path / "explanations" / "disputed"
    assert f"Panels: {folder.as_posix()}/panels" in printed
    assert "4 x 4" in printed
    index = json.loads((folder / "index.json").read_text())
    united = sum(len(set(one["votes"].values())) == 1 for one in index["images"])
    assert re.search(rf"\b{united} of them", printed)
    values = study_members(own.run.predictions("oof")).members.set_index("member")["shapley"]
    assert index["member_values"] == pytest.approx(
        {name: values[name] for name in index["members"]}
    )
    assert len(list((folder / "panels").iterdir())) == 2
    code, printed = cli(
        "explain", "--run", own.run.path, "--disputed", 2, "--method", "mean", "--json"
    )
    assert code == 0
    assert json.loads(printed)["folder"] == folder.as_posix()


def test_the_command_explains_named_images(
    explained_run: Any, test_paths: list[Path], cli: CLI, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, printed = cli("explain", test_paths[0], "--run", explained_run.run.path, "--out", out)
    assert code == 0, printed
    assert printed.startswith("1 image ")
    assert "--method mean" not in printed


def test_a_bundle_explains_named_images_and_is_not_changed(
    explained_run: Any, test_paths: list[Path], cli: CLI, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    assert cli("export", explained_run.run.path, bundle, "--method", "mean")[0] == 0
    code, printed = cli("explain", test_paths[0], "--run", bundle)
    assert code == 0, printed
    assert (tmp_path / "explanations" / "images" / "index.json").is_file()
    assert not (bundle / "explanations").exists()
    code, printed = cli("explain", "--run", bundle, "--worst", 3)
    assert code == 2
    assert str(bundle) in printed


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--maps", "gradcamm"), "gradcamm"),
        (("--class", "malign"), "malign"),
        (("--worst", "2", "--right", "2"), "--worst, --right"),
        (("--stain", "dap"), "dap"),
    ],
)
def test_wrong_values_are_refused_by_name(
    explained_run: Any, cli: CLI, tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    code, printed = cli("explain", "--run", explained_run.run.path, "--out", tmp_path / "o", *words)
    assert code == 2
    assert named in printed
