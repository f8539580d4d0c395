"""The section of provenance: settings, versions, digests, seeds, and commands that reproduce the run."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ensemble_kit.errors import command
from ensemble_kit.evaluation.cross_validation.baselines import REFERENCE_METHODS
from ensemble_kit.files import read_toml
from ensemble_kit.report.content import Content
from ensemble_kit.report.sections.section import Fold, Section
from ensemble_kit.report.sheet import Cell, Sheet, text_sheet
from ensemble_kit.report.trainings import recipe_rows
from ensemble_kit.run.folder import CONFIG

# Names of this program; other names are scripts of users.
PROGRAMS = ("ensemble-kit", "__main__")
OWN = ["member", "network", "input", "start"]


def provenance_section(content: Content) -> Section:
    """Settings, versions and commands that reproduce the results."""
    record, machine = content.record, content.record.get("machine", {})
    versions = ", ".join(f"{name} {one}" for name, one in record.get("versions", {}).items())
    text = f"Run made {record.get('created', 'at an unknown time')}"
    if machine:
        text += f" on {machine['system']} {machine['processor']}, {machine['cores']} cores"
    program = (record.get("command") or [""])[0]
    if program and program.partition(".")[0] not in PROGRAMS:
        text += f", by the script `{program}`"
    seed = seed_of(content)
    text += f", seed {seed}." if seed is not None else "."
    folds = [Fold("Digests (SHA-256)", (), (), (digests_sheet(content),))]
    recipes = recipe_rows(content.trainings)
    if len(recipes):
        folds.insert(
            0, Fold("Settings of the members", _shared(recipes), (), (recipes_sheet(recipes),))
        )
    return Section(
        "provenance",
        "Provenance",
        (text, f"{versions}." if versions else ""),
        folds=tuple(folds),
        commands=tuple(commands_of(content)),
    )


def seed_of(content: Content) -> Any:
    """The seed of the run's settings; None if it is not known."""
    path = content.run.path / CONFIG
    return read_toml(path).get("seed") if path.is_file() else None


def commands_of(content: Content) -> list[str]:
    """The command lines that made the run, its methods and this page."""
    program, *words = content.record.get("command") or [""]
    made = [command(*words)] if program.partition(".")[0] in PROGRAMS else []
    run, methods = (content.run.path, [m for m in content.stored if m not in REFERENCE_METHODS])
    if methods:
        chosen = command("stack", "--method", ",".join(methods), "--metric", content.metric)
        made.append(f"{chosen} {command('--run', run).removeprefix('ensemble-kit ')}")
    return [*made, command("report", "--run", run)]


def _shared(recipes: pd.DataFrame) -> tuple[str, ...]:
    shared = [c for c in recipes if c not in OWN and recipes[c].nunique(dropna=False) == 1]
    if not shared or len(recipes) < 2:
        return ()
    text = "; ".join(f"{c.replace('_', ' ')} {recipes[c].iloc[0]}" for c in shared)
    return (f"Every member: {text}.",)


def recipes_sheet(recipes: pd.DataFrame) -> Sheet:
    """Settings that differ between members; for a single member, all settings, one per row."""
    if len(recipes) == 1:
        rows = [(c.replace("_", " "), str(recipes[c].iloc[0])) for c in recipes]
        return text_sheet("recipes", "", [("setting", "value"), *rows])
    varied = [c for c in recipes if c in OWN or recipes[c].nunique(dropna=False) > 1]
    body = recipes[varied].astype(str).to_numpy().tolist()
    return text_sheet("recipes", "", [[c.replace("_", " ") for c in varied], *body])


def digests_sheet(content: Content) -> Sheet:
    """Digests of the manifest, the folds and each member's predictions."""
    rows = [(Cell(name), Cell(one)) for name, one in content.record["digests"].items()]
    made = next((one["made_of"] for one in content.stored.values() if "made_of" in one), None)
    for member, parts in (made or {}).get("members", {}).items():
        rows += [(Cell(f"{member}, {part}"), Cell(digest)) for part, digest in parts.items()]
    return Sheet("digests", "", (("", "what"), ("", "SHA-256")), tuple(rows))
