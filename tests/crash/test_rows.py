"""Every fault in the catalogue has a test that runs, can fail, and has its number."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

# A fault -> its tests without the number in their name, as `file::test`.
ROWS: dict[int, tuple[str, ...]] = {
    1: (),  # kill -9 in an epoch
    2: (),  # kill -9 while a checkpoint is written
    3: (),  # kill between the files of a job
    4: (),  # power loss
    5: (),  # a full disk
    6: (),  # quota, read-only, no permission
    7: (),  # two trainers, one run
    8: (),  # two hosts, locks that do not work
    9: (),  # a truncated checkpoint
    10: (),  # a flipped bit
    11: (),  # a checkpoint of another network
    12: (),  # settings that changed
    13: (),  # data that changed
    14: (),  # empty files, HTML called .jpg
    15: (),  # half a JPEG
    16: (),  # bit rot that decodes
    17: (),  # 16-bit grey
    18: (),  # float and 12-bit images
    19: (),  # CMYK, palettes, transparency
    20: (),  # EXIF orientation
    21: (),  # several pictures in a file
    22: (),  # huge images
    23: (),  # formats off the list
    24: (),  # slivers
    25: (),  # links in a circle, pipes, sockets
    26: (),  # odd names
    27: (),  # one image twice
    28: ("audit/test_check.py::test_rows_27_and_28_an_exact_copy_is_reported_by_the_parts_that_it_is_in",),  # one image, two labels
    29: (),  # a patient on both sides
    30: (),  # an unknown patient
    31: (  # a class that is missing in a fold
        "test_folds.py::test_no_fold_is_trained_without_a_class",
        "test_folds.py::test_a_class_that_is_not_in_every_fold_is_said",
    ),
    32: ("test_folds.py::test_fewer_groups_than_folds_are_refused_with_the_largest_number_that_works",),  # fewer patients than folds
    33: (),  # one class, an empty one, a misspelt one
    34: (),  # a loss that is not finite
    35: (),  # NaN in logits
    36: (),  # a GPU without memory
    37: (),  # a CPU without memory
    38: (),  # a killed worker
    39: (),  # no shared memory
    40: (),  # a lost device
    41: ("predictions/test_join.py::test_permuted_rows_and_classes_give_the_same_ensemble",),  # another class order
    42: ("predictions/test_store.py::test_other_rows_gaps_and_duplicates_are_refused",),  # other ids
    43: (),  # a member without one fold
    44: (),  # a tied vote
    45: (),  # a stacker evaluated on its training rows
    46: (  # tuning that uses the test part
        "tune/test_tune_members.py::test_tuning_does_not_read_test_images",
        "tune/test_tune_members.py::test_test_images_labels_and_predictions_do_not_change_trials",
    ),
    47: (),  # a killed tuner
    49: (),  # several tuners at once
    50: (),  # files that run code
    51: (),  # paths out of the data folder
    52: (),  # zip bombs
    53: (  # deep, huge and odd settings files
        "test_files.py::test_deep_nesting_is_an_error_and_no_crash",
        "test_files.py::test_huge_text_is_refused_before_it_is_read",
        "test_files.py::test_json_has_no_nan_when_written",
    ),
    54: (),  # formulas in names
    55: (  # markup in names
        "report/test_page.py::test_markup_in_names_is_shown_and_never_run",
        "report/test_page.py::test_the_page_forbids_everything_but_its_own_images_and_style",
    ),
    56: (),  # escape codes in names
    57: (),  # requests that are too large, slow, or of too many parts
    58: (  # bad images, path traversal, other hosts
        "crash/test_server.py::test_rows_56_and_58_a_token_a_port_in_use_odd_names_and_sigterm",
    ),
    59: (),  # signals
    60: (),  # unavailable published weights
    61: (),  # clocks that jump
    62: (),  # dependencies
}  # fmt: skip
# Faults that cannot occur, and the reason.
IMPOSSIBLE = {48: "studies are stored in SQLite, which recovers after a crash: there is no journal"}


def collected() -> dict[str, list[ast.FunctionDef]]:
    """The functions that pytest collects, by `file::test`."""
    found: dict[str, list[ast.FunctionDef]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.setdefault(f"{path.relative_to(TESTS).as_posix()}::{node.name}", []).append(
                    node
                )
    return found


COLLECTED = collected()


def named_for(row: int) -> list[str]:
    own = [name for name in COLLECTED if f"::test_row_{row}_" in name]
    return [*own, *ROWS[row]]


def is_skipped(test: ast.FunctionDef) -> bool:
    """Whether a test never runs: `skip`, constant `xfail` or `skipif`, or `skip` as first statement."""
    for decorator in test.decorator_list:
        words = ast.unparse(decorator)
        always = isinstance(decorator, ast.Call) and any(isinstance(a, ast.Constant) for a in decorator.args)  # fmt: skip
        if (
            words.startswith(("pytest.mark.skip(", "pytest.mark.xfail"))
            or words == "pytest.mark.skip"
        ):
            return True
        if words.startswith("pytest.mark.skipif(") and always:
            return True
    body = [
        n for n in test.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
    ]
    return ast.unparse(body[0]).startswith("pytest.skip(")


def can_fail(test: ast.FunctionDef) -> bool:
    """Whether a test has an assertion, an expected error, or a call of a function that asserts."""
    words = ast.unparse(test)
    return any(word in words for word in ("assert", "pytest.raises", "pytest.fail", "refuse"))


def test_every_row_of_the_catalogue_is_listed_once() -> None:
    assert sorted([*ROWS, *IMPOSSIBLE]) == list(range(1, 63))
    unlisted = {n.split("test_row_")[1].split("_")[0] for n in COLLECTED if "::test_row_" in n}
    assert {int(n) for n in unlisted} <= set(range(1, 63))


@pytest.mark.parametrize("row", ROWS)
def test_every_fault_has_a_test_that_runs_and_can_fail(row: int) -> None:
    names = named_for(row)
    assert names, f"no test is named test_row_{row}_..."
    assert set(names) <= set(COLLECTED), "a test was removed or renamed"
    found = [test for name in names for test in COLLECTED[name]]
    running = [test for test in found if not is_skipped(test) and can_fail(test)]
    assert running, f"every test of row {row} is skipped or cannot fail"


def test_no_two_tests_of_a_file_have_the_same_name() -> None:
    assert [name for name, tests in COLLECTED.items() if len(tests) > 1] == []
