"""`compare` across runs and over repeated folds: pairs, refused runs, output."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble_kit.checked import write_checked
from ensemble_kit.cli import app
from ensemble_kit.combiners.rules.voting import MajorityVote
from ensemble_kit.errors import DataError, IntegrityError, UsageError
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.compare_runs import compare_runs
from ensemble_kit.evaluation.runs.repeated_cv import compare_repeats
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.evaluation.runs.stored_ensembles import read_ensemble_predictions
from ensemble_kit.folds import make_folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.metrics import metric
from ensemble_kit.metrics.sufficient_statistics import sums_of
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_logits, toy_run

pytestmark = pytest.mark.slow

QUICK = Protocol(n_resamples=50)


def call(*args: object) -> str:
    return CliRunner().invoke(app, ["compare", *map(str, args)], catch_exceptions=False).output


def repeated(path: Path, source: Run, fold_seed: int, n_splits: int = 4) -> Run:
    """The same images and members, with predictions for folds of another seed."""
    manifest = source.manifest()
    folds = make_folds(manifest, n_splits, seed=fold_seed)
    run = Run(path)
    run.begin(manifest, folds, {})
    made_of = {
        "manifest": manifest.digest,
        "folds": folds.digest,
        "folds_done": list(range(n_splits)),
    }
    labels = manifest.part("train").labels
    logits = toy_logits(labels, len(source.members()), 3, seed=fold_seed)
    for m, name in enumerate(source.members()):
        stored = source.store.read(name)
        test = stored.test[0]
        new = dataclasses.replace(
            stored, oof=logits[:, m], about=made_of, test=dict.fromkeys(range(n_splits), test)
        )
        run.store.write(name, new)
    return run


@pytest.fixture(scope="module")
def repeats(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Three stacked repeats over one toy data set."""
    folder = tmp_path_factory.mktemp("repeats")
    source = toy_run(folder / "source")
    runs = [repeated(folder / f"toy-repeat-{r + 1}", source, r) for r in range(3)]
    for run in runs:
        stack_run(run, ["vote"], protocol=QUICK)
    return runs


# -- across runs ---------------------------------------------------------------------------


def test_a_run_is_not_compared_with_itself(repeats: list[Run]) -> None:
    one = repeats[0]
    with pytest.raises(UsageError, match="repeat-1"):
        compare_runs([one, Run(one.path.parent / "." / one.path.name)], protocol=QUICK)
    with pytest.raises(UsageError, match=r"stack --method vote,mean --run"):
        compare_runs([one], method="vote,mean", protocol=QUICK)


@pytest.mark.parametrize(
    ("how", "named"), [({"seed": 1}, "other'"), ({"n_classes": 2}, "'.*other' has class0, class1")]
)
def test_runs_over_other_labels_are_not_compared(
    repeats: list[Run], tmp_path: Path, how: dict[str, int], named: str
) -> None:
    other = toy_run(tmp_path / "other", **how)
    stack_run(other, ["mean"], protocol=QUICK)
    with pytest.raises(DataError, match=named):
        compare_runs([repeats[0], other], protocol=QUICK)


def test_runs_are_not_ranked_by_a_metric_that_should_be_near_one(repeats: list[Run]) -> None:
    with pytest.raises(UsageError, match="'calibration_slope'"):
        compare_runs(repeats[:2], protocol=Protocol(metric="calibration_slope"))


def test_stacked_predictions_older_than_their_members_are_not_compared(
    repeats: list[Run], tmp_path: Path
) -> None:
    shutil.copytree(repeats[1].path, tmp_path / "stale")
    stale = Run(tmp_path / "stale")
    name = stale.members()[0]
    stored = stale.store.read(name)
    stale.store.write(name, dataclasses.replace(stored, oof=stored.oof + np.eye(3)[0]))
    with pytest.raises(IntegrityError, match=name):
        compare_runs([repeats[0], stale], protocol=QUICK)


def test_compared_metrics_are_those_of_the_stored_predictions(repeats: list[Run]) -> None:
    found = compare_runs(repeats[:2], method="vote", protocol=QUICK)
    for run in repeats[:2]:
        rows = read_ensemble_predictions(run.ensemble_dir("vote")).query("split == 'oof'")
        right = (rows["label"] == rows["predicted"]).mean()
        assert found.metrics[run.path.as_posix()]["accuracy"].value == pytest.approx(right)


def test_classes_are_matched_by_name_in_any_order(repeats: list[Run], tmp_path: Path) -> None:
    one = repeats[0]
    table = one.manifest().table
    columns = ("sample_id", "path", "label", "group", "split")
    turned = Manifest.from_records(
        list(table[list(columns)].itertuples(index=False, name=None)), columns=columns,
        group_kind="patient", class_names=one.manifest().class_names[::-1],
    )  # fmt: skip
    folds = make_folds(turned, 4)
    run = Run(tmp_path / "turned")
    run.begin(turned, folds, {})
    for name in one.members():
        stored = one.store.read(name)
        about = {**stored.about, "manifest": turned.digest, "folds": folds.digest}
        run.store.write(name, dataclasses.replace(stored, about=about))
    stack_run(run, ["mean"], protocol=QUICK)
    assert run.predictions("oof").class_names == one.predictions("oof").class_names[::-1]
    first, second = compare_runs([one, run], protocol=QUICK).metrics.values()
    for name in ("accuracy", "auroc", "log_loss"):
        assert second[name].value == pytest.approx(first[name].value, abs=1e-6), name


def test_the_compared_method_can_be_a_member(repeats: list[Run]) -> None:
    run = repeats[0]
    found = compare_runs(repeats[:2], method="member3", protocol=QUICK)
    oof = run.predictions("oof").select(["member3"])
    right = (oof.logits[:, 0].argmax(axis=1) == oof.labels).mean()
    assert found.metrics[run.path.as_posix()]["accuracy"].value == pytest.approx(right)


def test_caveats_of_stacked_predictions_are_printed_once(
    repeats: list[Run], tmp_path: Path
) -> None:
    shutil.copytree(repeats[1].path, tmp_path / "noted")
    path = tmp_path / "noted" / "ensembles" / "vote" / "metrics.json"
    stored = json.loads(path.read_text())
    stored["notes"].append("Quorum: 3 of 4.")
    write_checked(path, stored)
    printed = call(repeats[0].path, tmp_path / "noted", "--method", "vote", "--resamples", 50)
    assert f"Caveat: {(tmp_path / 'noted').as_posix()}: Quorum: 3 of 4.\n" in printed
    assert printed.count("`vote` outputs vote shares") == 1


def test_the_coverage_is_shown_if_a_method_abstained(tmp_path: Path) -> None:
    runs = [toy_run(tmp_path / name) for name in ("one", "two")]
    for run, ties in zip(runs, ("abstain", "proba"), strict=True):
        stack_run(run, {"vote": MajorityVote(ties=ties)}, protocol=QUICK)
    printed = call(*(run.path for run in runs), "--method", "vote", "--resamples", 50)
    table = printed.splitlines()[2:]
    assert "coverage" in table[0]
    rows = read_ensemble_predictions(runs[0].ensemble_dir("vote")).query("split == 'oof'")
    covered = (rows["predicted"] != "").mean()
    assert 0 < covered < 1
    assert f"{covered:.3f}".removeprefix("0") in table[1]
    same = call(*(run.path for run in runs), "--method", "member0", "--resamples", 50)
    assert "coverage" not in same.splitlines()[2]


# -- over repeated folds -------------------------------------------------------------------


def test_the_gain_over_repeats_is_the_corrected_t_of_nadeau_and_bengio(repeats: list[Run]) -> None:
    from scipy.stats import t

    found = compare_repeats(repeats, method="vote")
    differences = []
    for run in repeats:
        tables = {
            name: read_ensemble_predictions(run.ensemble_dir(name)).query("split == 'oof'")
            for name in ("vote", "best-member")
        }
        fold = run.predictions("oof").fold
        names = list(run.predictions("oof").class_names)
        for k in range(4):
            values = []
            for table in tables.values():
                part = table[fold == k]
                hit = part["label"] == part["predicted"]
                values.append(np.mean([hit[part["label"] == c].mean() for c in names]))
            differences.append(values[0] - values[1])
    d = np.array(differences)
    assert len(d) == 12
    spread = np.sqrt(d.var(ddof=1) * (1 / 12 + 1 / 3))
    gain = next(one for one in found.gains if one.against == "best-member")
    assert gain.gain.value == pytest.approx(d.mean())
    assert gain.p_value == pytest.approx(2 * t.sf(abs(d.mean()) / spread, 11))
    half = t.ppf(0.975, 11) * spread
    assert (gain.gain.low, gain.gain.high) == pytest.approx((d.mean() - half, d.mean() + half))
    assert (gain.p_value < 0.05) == (gain.word != "not shown")


def test_a_lower_log_loss_is_a_gain(repeats: list[Run]) -> None:
    found = compare_repeats(repeats, method="mean", protocol=Protocol(metric="log_loss"))
    table = found.folds
    assert [one.against for one in found.gains] == ["best-member"]
    want = (table["best-member"] - table["mean"]).mean()
    assert found.gains[0].gain.value == pytest.approx(want)
    oof = repeats[0].predictions("oof")
    inside = np.asarray(oof.fold) == table["fold"][0]
    rows = read_ensemble_predictions(repeats[0].ensemble_dir("mean")).query("split == 'oof'")
    proba = rows.filter(like="p_").to_numpy()[inside]
    loss = metric("log_loss").of_sums(sums_of(oof.labels[inside], proba))
    assert table["mean"][0] == pytest.approx(float(loss))


def test_a_method_equal_to_its_baseline_has_no_interval_and_no_p_value(
    repeats: list[Run], tmp_path: Path
) -> None:
    runs = []
    for run in repeats[:2]:
        shutil.copytree(run.path, tmp_path / run.path.name)
        runs.append(Run(tmp_path / run.path.name))
        twin = runs[-1].ensemble_dir("twin")
        shutil.copytree(runs[-1].ensemble_dir("mean"), twin)
        metrics = json.loads((twin / "metrics.json").read_text())
        write_checked(twin / "metrics.json", {**metrics, "method": "twin"})
    found = {one.against: one for one in compare_repeats(runs, method="twin").gains}["mean"]
    assert (found.gain.value, found.gain.low, found.p_value) == (0.0, None, None)


def test_runs_that_are_not_repeats_are_refused(repeats: list[Run], tmp_path: Path) -> None:
    shutil.copytree(repeats[0].path, tmp_path / "copy")
    with pytest.raises(DataError, match=r"copy.*toy-repeat-1'"):
        compare_repeats([repeats[0], Run(tmp_path / "copy")], method="vote")
    other = toy_run(tmp_path / "other", n_members=2)
    stack_run(other, ["vote"], protocol=QUICK)
    with pytest.raises(DataError, match=r"'.*/other'.*'.*repeat-1'"):
        compare_repeats([repeats[0], other], method="vote")
    more = repeated(tmp_path / "more", repeats[0], 0, n_splits=5)
    stack_run(more, ["vote"], protocol=QUICK)
    with pytest.raises(DataError, match=r"'.*/more'.*'.*repeat-1'"):
        compare_repeats([repeats[0], more], method="vote")


def test_repeats_are_reported_as_a_table_and_a_verdict_on_each_baseline(repeats: list[Run]) -> None:
    printed = call(*(run.path for run in repeats), "--repeats", "--method", "vote")
    lines = printed.splitlines()
    assert lines[0].startswith("Verdict: vote ")
    lines = lines[3:]
    assert lines[0].startswith("3 repeats x 4 folds of 192 images of 32 patients")
    assert lines[1].split() == ["run", "vote", "best-member", "mean"]
    assert "Nadeau & Bengio 2003" in printed
    assert printed.count("Verdict: ") == 2
    printed_json = json.loads(call(*(run.path for run in repeats), "--repeats", "--json"))
    assert (printed_json["n_repeats"], printed_json["n_splits"], len(printed_json["folds"])) == (
        3,
        4,
        12,
    )


def test_repeats_share_one_test_part_which_is_not_evaluated(repeats: list[Run]) -> None:
    with pytest.raises(UsageError, match="--split test"):
        call(repeats[0].path, repeats[1].path, "--repeats", "--split", "test")


def test_training_repeats_ends_with_the_command_that_compares_them(
    cli: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(
        "ensemble_kit.cli.commands.train_members.run_training",
        lambda one, *_, **__: trained.append(one.run_path.as_posix()),
    )
    code, printed = cli("train-members", "--repeats", 2, "--run", "here")
    assert (code, trained) == (0, ["here-repeat-1", "here-repeat-2"])
    command = "Then: ensemble-kit compare here-repeat-* --repeats --method vote"
    assert printed.splitlines()[-1] == command


def test_a_method_replaced_by_the_mean_is_starred_and_has_its_own_caveats(tmp_path: Path) -> None:
    runs = [toy_run(tmp_path / name) for name in ("one", "two")]
    for run in runs:
        stack_run(run, ["vote", "dirichlet", "classwise"], protocol=QUICK)
    found = compare_runs(runs, method="vote", protocol=QUICK)
    assert found.replaced == ()
    assert not any("dirichlet" in note or "classwise" in note for note in found.notes)
    path = runs[1].ensemble_dir("dirichlet") / "metrics.json"
    write_checked(path, json.loads(path.read_text()) | {"fell_back_to_mean": True})
    found = compare_runs(runs, method="dirichlet", protocol=QUICK)
    assert runs[1].path.as_posix() in found.replaced
    printed = call(*(run.path for run in runs), "--method", "dirichlet", "--resamples", 50)
    assert f"{runs[1].path.as_posix()}* " in printed
