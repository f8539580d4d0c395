"""`compare` and `import-predictions` on the command line."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ensemble_kit.arrays import softmax
from ensemble_kit.cli import app
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.imports.import_predictions import import_predictions
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.compare_runs import compare_runs
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_predictions, toy_run

QUICK = Protocol(n_resamples=100)


def call(*args: str):
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


def written(folder: Path, *, turn_classes: bool = False, shuffle: bool = False):
    table = toy_predictions(200, 3, 3, n_groups=20)
    names = table.class_names
    pd.DataFrame(
        {
            "sample_id": table.sample_ids,
            "label": np.array(names)[table.labels],
            "group": table.groups,
            "fold": table.fold,
        }
    ).to_csv(folder / "labels.csv", index=False)
    for m, member in enumerate(table.member_names):
        frame = pd.DataFrame(softmax(table.logits[:, m]), columns=list(names))
        frame.insert(0, "sample_id", table.sample_ids)
        if turn_classes:
            frame = frame[["sample_id", *names[::-1]]]
        if shuffle:
            frame = frame.sample(frac=1, random_state=m)
        frame.to_csv(folder / f"{member}.csv", index=False)
    return table, {name: folder / f"{name}.csv" for name in table.member_names}


@pytest.mark.parametrize("how", [{}, {"turn_classes": True}, {"shuffle": True}])
def test_rows_41_and_42_imports_join_by_id_and_class_name(tmp_path: Path, how: dict) -> None:
    table, files = written(tmp_path, **how)
    run = import_predictions(Run(tmp_path / "run"), tmp_path / "labels.csv", files)
    oof = run.predictions("oof")
    assert oof.sample_ids.tolist() == table.sample_ids.tolist()
    np.testing.assert_allclose(softmax(oof.logits), softmax(table.logits), atol=1e-6)
    assert any("imported" in note for note in oof.notes)


def test_an_imported_run_can_be_stacked(tmp_path: Path) -> None:
    _, files = written(tmp_path)
    pairs = [f"{name}={path}" for name, path in files.items()]
    printed = call(
        "import-predictions",
        *pairs,
        "--labels",
        str(tmp_path / "labels.csv"),
        "--run",
        str(tmp_path / "run"),
    ).output
    assert "3 members" in printed
    assert (
        "best single member"
        in call(
            "stack", "--run", str(tmp_path / "run"), "--method", "vote", "--resamples", "50"
        ).output
    )


def test_missing_ids_logits_and_unnamed_members_are_refused(tmp_path: Path) -> None:
    _, files = written(tmp_path)
    frame = pd.read_csv(files["member0"])
    frame.iloc[5:].to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(DataError, match="short"):
        import_predictions(
            Run(tmp_path / "a"), tmp_path / "labels.csv", {"short": tmp_path / "short.csv"}
        )
    frame.assign(class0=frame["class0"] + 3).to_csv(tmp_path / "raw.csv", index=False)
    with pytest.raises(DataError, match="--kind logits"):
        import_predictions(
            Run(tmp_path / "b"), tmp_path / "labels.csv", {"raw": tmp_path / "raw.csv"}
        )
    with pytest.raises(UsageError, match="NAME=FILE"):
        call("import-predictions", "x.csv", "--labels", str(tmp_path / "labels.csv"), "--run", "c")


def test_runs_are_compared_on_shared_samples_and_a_copy_is_not_shown_to_differ(
    tmp_path: Path,
) -> None:
    one = toy_run(tmp_path / "one")
    stack_run(one, ["mean"], protocol=QUICK)
    shutil.copytree(one.path, tmp_path / "two")
    found = compare_runs([one, Run(tmp_path / "two")], protocol=QUICK)
    assert [v.word for v in found.verdicts] == ["not shown"]
    assert found.verdicts[0].effect.value == 0.0
    printed = call("compare", str(one.path), str(tmp_path / "two"), "--resamples", "50").output
    assert "is not shown to differ from" in printed


def test_a_run_without_stacked_methods_is_refused_with_the_stack_command(tmp_path: Path) -> None:
    one, two = toy_run(tmp_path / "one"), toy_run(tmp_path / "two")
    with pytest.raises(UsageError, match="ensemble-kit stack --method mean"):
        compare_runs([one, two])


# -- output of imports---------------------------------------------------------------------


def test_the_printed_command_is_quoted_and_status_describes_an_import(
    tmp_path: Path, cli: Callable[..., tuple[int, str]]
) -> None:
    _, files = written(tmp_path)
    (tmp_path / "costs.csv").write_text("member,gmacs\nmember0,1\nmember1,2\n")
    pairs = [f"{name}={path}" for name, path in files.items()]
    given = ["--labels", "labels.csv", "--member-costs", "costs.csv", "--run", "My Drive/run 1"]
    code, printed = cli("import-predictions", *pairs, *given)
    assert code == 0
    line = next(x for x in printed.splitlines() if x.startswith("Next: "))
    words = shlex.split(line.removeprefix("Next: "))
    assert words == ["ensemble-kit", "stack", "--method", "all", "--run", "My Drive/run 1"]
    code, printed = cli("status", "My Drive/run 1")
    assert code == 0
    assert "3 members" in printed
    assert "200 images" in printed
    assert "jobs" not in printed
    assert cli("status", "--run", "My Drive/run 1") == (0, printed)
    assert cli("status", "other", "--run", "My Drive/run 1")[0] == 2
    code, printed = cli("status", "My Drive/run 1", "--json")
    assert json.loads(printed) == []
    code, printed = cli("operating-point", "--run", "My Drive/run 1", "--method", "vote")
    assert "--run 'My Drive/run 1'" in printed


def test_diversity_of_a_partial_import_advises_to_import_again(
    tmp_path: Path, cli: Callable[..., tuple[int, str]]
) -> None:
    _, files = written(tmp_path)
    frame = pd.read_csv(files["member0"])
    frame.iloc[5:].to_csv(files["member0"], index=False)
    pairs = [f"{name}={path}" for name, path in files.items()]
    cli("import-predictions", *pairs, "--labels", "labels.csv", "--run", "run", "--partial")
    code, printed = cli("diversity", "--run", "run", "--resamples", 10)
    assert code == 3
    assert "'member0'" in printed
    assert "train-members" not in printed


def test_classes_with_commas_can_be_given_in_quotes(
    tmp_path: Path, cli: Callable[..., tuple[int, str]]
) -> None:
    names = ["in situ, DCIS", "benign", 'so "called"']
    ids = [f"s{i}" for i in range(30)]
    labels = np.arange(30) % 3
    pd.DataFrame({"sample_id": ids, "label": np.array(names)[labels]}).to_csv("labels.csv")
    frame = pd.DataFrame(np.eye(3)[labels], columns=names)
    frame.insert(0, "sample_id", ids)
    frame.to_csv("a.csv", index=False)
    typed = 'benign,"in situ, DCIS","so ""called"""'
    args = ("import-predictions", "a=a.csv", "--labels", "labels.csv", "--classes", typed)
    code, printed = cli(*args, "--run", "run")
    assert code == 0
    assert Run(tmp_path / "run").manifest().class_names == (
        "benign",
        "in situ, DCIS",
        'so "called"',
    )
    assert '"in situ, DCIS"' in printed
