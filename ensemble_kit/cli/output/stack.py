"""Output of `stack` and `demo`: sentences, tables and caveats, or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.output.tables import print_table
from ensemble_kit.cli.output.text import print_command, print_text
from ensemble_kit.errors import command, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ensemble_kit.evaluation.runs.stack_run import Stacked
    from ensemble_kit.predictions.table import Predictions
    from ensemble_kit.run import Run


N_CAVEATS = 3


def as_values(done: Stacked, run: Run) -> dict[str, Any]:
    """All results as JSON values."""
    from ensemble_kit.evaluation.tables.permutation_test import permutation_json
    from ensemble_kit.evaluation.tables.result_sentences import result_sentences

    return {
        "run": run.path.as_posix(),
        "methods": done.stored,
        "result": result_sentences(done.stored),
        "verdict": done.verdict,
        "nested_verdict": done.nested_verdict,
        "positive": None if done.clinical is None else done.clinical.positive,
        "clinical_method": None if done.clinical is None else done.clinical.method,
        "tests": done.tests_sentence,
        "caveats": done.caveats,
        "notes": done.notes,
        "permutation_test": None
        if done.permutation is None
        else permutation_json(done.permutation),
        "pareto": None
        if done.pareto is None
        else json.loads(done.pareto.to_json(orient="records")),
    }


def print_stacked(
    done: Stacked,
    run: Run,
    *,
    verbose: bool = False,
    per_class: bool = False,
    clinical: bool = False,
    has_next: bool = True,
) -> None:
    """Print the result, the table of methods, the most important caveats, and the next command."""
    from ensemble_kit.evaluation.tables.result_sentences import paper_sentence, result_sentences

    for sentence in result_sentences(done.stored):
        print_text(sentence)
    click.echo()
    n_hidden = 0 if verbose else _print_short(done)
    _print_requested(done, clinical=clinical)
    if per_class and not verbose:
        print_classes(done)
    if verbose:
        _print_full(done)
    click.echo()
    _print_caveats(done.notes if verbose else done.caveats, done.notes, n_hidden, verbose=verbose)
    print_text(f"For a paper: {paper_sentence(done.stored, done.protocol.level)}")
    print_text(f"All values of all methods: {run.path.as_posix()}/ensembles/scores.csv")
    if has_next:
        print_command("Next", command("report", "--run", run.path))


def _print_short(done: Stacked) -> int:
    """The best methods with their legend; return the number of other methods."""
    from ensemble_kit.evaluation.tables import leaderboard as board
    from ensemble_kit.evaluation.tables.result_sentences import chance_sentence

    rows, n_hidden = board.short_leaderboard(done.evaluations, done.protocol)
    print_table(rows, n_text=1)
    note = board.short_note(
        done.evaluations,
        done.protocol,
        done.oof.group_kind,
        _best_member(done) if done.test is not None else None,
        chance_sentence(done.stored),
        has_star=any("*" in row[0] for row in rows),
    )
    print_text(note)
    return n_hidden


def _best_member(done: Stacked) -> str | None:
    from ensemble_kit.evaluation.runs.ensemble_files import best_member_of

    return best_member_of(done.evaluations["best-member"], done.oof)


def _print_caveats(
    some: Sequence[str], everything: Sequence[str], n_hidden: int, *, verbose: bool
) -> None:
    """The caveats, and how many other caveats and methods there are."""
    shown = some if verbose else some[:N_CAVEATS]
    for caveat in shown:
        print_text(f"Caveat: {caveat}")
    left = len(everything) - len(shown)
    more = [counted(n, what) for n, what in ((n_hidden, "more method"), (left, "more caveat")) if n]
    if more:
        print_text(f"{' and '.join(more)}: --verbose, or the report.")


def _print_requested(done: Stacked, *, clinical: bool) -> None:
    """The tables of --clinical, --pareto and --permutation-test."""
    from ensemble_kit.evaluation.diversity.pareto import cheapest_sentence, pareto_rows
    from ensemble_kit.evaluation.tables.permutation_test import permutation_note, permutation_rows

    if clinical:
        print_clinical(done)
    if done.pareto is not None:
        click.echo()
        print_table(pareto_rows(done.pareto), n_text=1)
        print_text(cheapest_sentence(done.pareto))
    if done.permutation is not None:
        click.echo()
        print_table(permutation_rows(done.permutation), n_text=1)
        print_text(permutation_note(done.permutation))
        print_text(f"Permutation test: {done.permutation.sentence}")


def _print_full(done: Stacked) -> None:
    """The full tables: all methods and columns, per patient, and per class."""
    from ensemble_kit.evaluation.compare import chosen
    from ensemble_kit.evaluation.tables import leaderboard as board
    from ensemble_kit.evaluation.tables.ordinal import ordinal_note, ordinal_table
    from ensemble_kit.evaluation.tables.result_sentences import chance_sentence

    evaluations, protocol, unit = done.evaluations, done.protocol, done.oof.group_kind
    print_text(_sizes(done))
    print_table(board.leaderboard(evaluations, protocol), n_text=2)
    print_text(
        f"{board.columns_note(evaluations, protocol, unit)} {chance_sentence(done.stored)}".strip()
    )
    if any(one.fell_back for one in evaluations.values()):
        print_text(board.replaced_legend(protocol.metric, has_test=done.test is not None))
    print_text(board.ties_note(evaluations))
    print_text(chosen(evaluations, protocol).optimism_sentence(protocol.metric))
    if ordinal := ordinal_table(evaluations, protocol, ordinal=done.oof.ordinal):
        click.echo()
        print_table(ordinal)
        print_text(ordinal_note(done.oof.class_names))
    if pooled := board.per_group_table(evaluations, protocol, unit):
        click.echo()
        print_table(pooled)
        print_text(board.per_group_note(pooled, unit, protocol.pool))
    print_classes(done)
    if done.verdict:
        print_text(f"Verdict: {done.verdict}")
    if done.tests_sentence:
        print_text(f"Tests: {done.tests_sentence}")


def print_classes(done: Stacked) -> None:
    """Metrics of each class against the rest, for the best method."""
    from ensemble_kit.evaluation.tables.per_class import class_note, class_tables

    found = class_tables(done.evaluations, done.protocol, done.oof.class_names)
    for title, rows in found.items():
        click.echo()
        print_text(f"{title}:")
        print_table(rows)
    print_text(class_note())


def print_clinical(done: Stacked) -> None:
    """Net benefit, calibration, predictive values and subgroups of the best method."""
    from ensemble_kit.evaluation.clinical.block import clinical_json
    from ensemble_kit.evaluation.tables.clinical import clinical_tables

    found = done.clinical
    if found is None:
        return
    printed = set()
    for title, rows, note in clinical_tables(clinical_json(found), done.oof.group_kind):
        click.echo()
        print_text(f"{title}:")
        print_table(rows, n_text=1 if rows[0][-1] == "remark" else 0)
        if note and note not in printed:
            print_text(note)
        printed.add(note)
    if found.why_not:
        click.echo()
        print_text(found.why_not)


def _sizes(done: Stacked) -> str:
    def size(name: str, table: Predictions) -> str:
        units = (
            ""
            if table.group_kind == "image"
            else f" of {counted(table.n_groups, table.group_kind)}"
        )
        return f"{name} {counted(len(table), 'image')}{units}"

    parts = [size("out-of-fold", done.oof)] + ([size("test", done.test)] if done.test else [])
    by_image = " | SPLIT BY IMAGE" if done.oof.split_by == "image" else ""
    return f"{counted(done.oof.n_members, 'member')} ({', '.join(done.oof.member_names)}); {'; '.join(parts)}{by_image}"
