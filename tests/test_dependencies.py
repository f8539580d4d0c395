"""Row 62: imports and declared dependencies agree; versions with known critical faults are excluded."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import ensemble_kit

PACKAGE = Path(ensemble_kit.__file__).parent
DECLARED = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
# Distributions whose import name differs.
IMPORTED_AS = {
    "jinja2": "jinja2",
    "mlflow-skinny": "mlflow",
    "pillow": "PIL",
    "python-multipart": "python_multipart",
    "scikit-learn": "sklearn",
    "tomli-w": "tomli_w",
}
# Imported package -> the declared dependency that always installs it.
COMES_WITH = {
    "huggingface_hub": "timm",
    "torchvision": "timm",
    "packaging": "matplotlib",
    "starlette": "fastapi",
    "markupsafe": "jinja2",
}
# Imported only by a dependency: torch.utils.tensorboard, torch.onnx.
USED_BY = {"tensorboard": "torch", "onnx": "torch"}
# The first version without a known fault that a prepared file can exploit, and the fault.
SAFE_SINCE = {
    "jinja2": ((3, 1), "escaping of attributes"),
    "pillow": ((13, 0, 0), "overflow while a JPEG is decoded"),
    "torch": ((2, 6), "weights_only=True runs code"),
    "safetensors": ((0, 4, 3), "headers beyond the file"),
}
# Packages that can run code from a file.
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "yaml"}


def requirements(*extras: str) -> dict[str, str]:
    """Distribution -> version bound, of the dependencies and of `extras`."""
    lines = [*DECLARED["dependencies"]]
    lines += [line for extra in extras for line in DECLARED["optional-dependencies"][extra]]
    found = [re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", line) for line in lines]
    return {m[1].lower(): m[2] for m in found if m}


def imported() -> dict[str, set[str]]:
    """Top-level package -> the files that import it."""
    names: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [node.module]
            for module in modules:
                names.setdefault(module.split(".")[0], set()).add(
                    path.relative_to(PACKAGE).as_posix()
                )
    return names


def third_party() -> dict[str, set[str]]:
    own = {"ensemble_kit", "__future__", *sys.stdlib_module_names}
    return {name: files for name, files in imported().items() if name not in own}


EXTRAS = [extra for extra in DECLARED["optional-dependencies"] if extra != "test"]


def test_row_62_every_import_is_declared() -> None:
    declared = {IMPORTED_AS.get(name, name) for name in requirements(*EXTRAS)}
    undeclared = {
        name: sorted(files)[:3]
        for name, files in third_party().items()
        if name not in declared and COMES_WITH.get(name) not in declared
    }
    assert undeclared == {}


def test_row_62_every_declared_package_is_imported() -> None:
    names = set(third_party())
    unused = [
        name
        for name in requirements(*EXTRAS)
        if IMPORTED_AS.get(name, name) not in names and name not in USED_BY
    ]
    assert unused == []


def test_row_62_every_dependency_has_a_lower_bound() -> None:
    # A bound of this form also excludes packages from a URL.
    bounds = requirements(*DECLARED["optional-dependencies"])
    assert {
        n: bound for n, bound in bounds.items() if not re.fullmatch(r">=\d+(\.\d+)*", bound)
    } == {}


@pytest.mark.parametrize("name", SAFE_SINCE)
def test_row_62_versions_with_known_faults_are_not_allowed(name: str) -> None:
    bound = tuple(map(int, requirements()[name].removeprefix(">=").split(".")))
    assert bound >= SAFE_SINCE[name][0], SAFE_SINCE[name][1]


def test_row_62_unpicklers_are_not_imported() -> None:
    # `weight_file` uses only an exception of `pickle`. A tuning worker reads only what its parent
    # process writes to its standard input.
    found = {n: files for n, files in imported().items() if n in UNPICKLERS}
    assert set(found) <= {"pickle"}
    assert found.get("pickle", set()) <= {"members/networks/weight_file.py", "launch/tuning.py"}
