"""Modules import only lower layers, and evaluation does not import torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ensemble_kit

PACKAGE = Path(ensemble_kit.__file__).parent
LAYERS = (
    "errors",
    "faults",
    "arrays",
    "memory",
    "parallel",
    "archives",
    "seeding",
    "formulas",
    "atomic_write",
    "files",
    "checked",
    "replaced",
    "tables",
    "locks",
    "doctor",
    "settings",
    "manifest",
    "folds",
    "predictions",
    "run",
    "images",
    "audit",
    "members",
    "combiners",
    "metrics",
    "evaluation",
    "inference",
    "plots",
    "explanation",
    "report",
    "tune",
    "export",
    "serve",
    "setting_precedence",
    "experiment",
    "experiment_data",
    "reproduce",
    "launch",
    "testing",
    "cli",
)
TORCH_FREE = ("combiners", "metrics", "evaluation", "plots", "report")
FILES = sorted(
    p
    for p in PACKAGE.rglob("*.py")
    if p.relative_to(PACKAGE).as_posix() not in ("__init__.py", "__main__.py")
)


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, top_level_only: bool) -> list[str]:
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_to_lower_layers(path: Path) -> None:
    own_layer = LAYERS.index(layer_of(path))
    for name in imports(ast.parse(path.read_text()), top_level_only=True):
        if name.startswith("ensemble_kit."):
            imported_layer = name.split(".")[1]
            assert imported_layer in LAYERS, f"{name} is not in LAYERS"
            assert LAYERS.index(imported_layer) <= own_layer, (
                f"{layer_of(path)} imports {imported_layer}, which is a higher layer"
            )


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if layer_of(p) in TORCH_FREE],
    ids=lambda p: p.relative_to(PACKAGE).as_posix(),
)
def test_torch_is_not_imported_at_the_top_of_evaluation_modules(path: Path) -> None:
    heavy = {"torch", "timm", "torchvision"}
    assert (
        not {n.split(".")[0] for n in imports(ast.parse(path.read_text()), top_level_only=True)}
        & heavy
    )


def test_combining_and_evaluating_do_not_load_torch() -> None:
    code = (
        "import sys, ensemble_kit as ek, numpy as np\n"
        "logits = np.random.default_rng(0).normal(size=(20, 3, 2))\n"
        "ek.MajorityVote().fit(logits, np.arange(20) % 2).predict(logits)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
