"""The command line: one command per file, loaded on first use.

Each command parses its options, calls one library function and prints the result. An error becomes
one message and an exit code.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys

import click

from ensemble_kit.cli.output import streams
from ensemble_kit.cli.output.text import printable
from ensemble_kit.errors import EnsembleKitError, did_you_mean
from ensemble_kit.faults import machine_fault

# Command -> (module under ensemble_kit.cli, its function, its line in the help).
COMMANDS = {
    "demo": ("commands.demo", "demo", "Train, combine and report on an embedded data set."),
    "data": (
        "commands.data",
        "data",
        "Check a data set, show its images, or make a synthetic one.",
    ),
    "train-members": (
        "commands.train_members",
        "train_members",
        "Train each member on each fold, and store all predictions.",
    ),
    "tune": ("commands.tune", "tune", "Tune each member with Optuna, and show whether it helped."),
    "members": ("commands.members", "members", "List the networks that can be used as members."),
    "status": (
        "commands.status",
        "status",
        "Show which jobs are done, running, failed or waiting.",
    ),
    "run-job": (
        "commands.run_job",
        "run_job",
        "Run one job of a planned run, for other schedulers.",
    ),
    "stack": (
        "commands.stack",
        "stack",
        "Combine the members, evaluate the result, and compare it with the best member.",
    ),
    "report": ("commands.report", "report", "Write the report of a run as one HTML page."),
    "predict": ("commands.predict", "predict", "Predict new images with the ensemble of a run."),
    "explain": (
        "commands.explain",
        "explain",
        "Show which regions of an image the predictions depend on.",
    ),
    "serve": ("commands.serve", "serve", "Serve an ensemble over HTTP, with a web page."),
    "export": (
        "commands.export",
        "export",
        "Write the ensemble of a run as a bundle that predicts without the run.",
    ),
    "bench": ("commands.bench", "bench", "Measure how fast a bundle predicts on this machine."),
    "reproduce": ("commands.reproduce", "reproduce", "Rerun one of the published experiments."),
    "conformal": (
        "commands.conformal",
        "conformal",
        "Make prediction sets: sets of classes with a stated coverage.",
    ),
    "operating-point": (
        "commands.operating_point",
        "operating_point_command",
        "Choose a decision threshold and a rule for referral.",
    ),
    "diversity": (
        "commands.diversity",
        "diversity",
        "Measure how much the members differ, and what each member adds.",
    ),
    "compare": ("commands.compare", "compare", "Compare runs on the images that they share."),
    "import-predictions": (
        "commands.import_predictions",
        "import_predictions_command",
        "Make a run from predictions of other programs.",
    ),
    "verify-claim": (
        "commands.verify_claim",
        "verify_claim_command",
        "Check whether a published accuracy is possible for n images.",
    ),
    "doctor": (
        "commands.doctor",
        "doctor_command",
        "Check Python, packages, device, memory, disk and file locks.",
    ),
}

STOPPED = "Stopped. Finished work is stored. The same command continues."


class LazyGroup(click.Group):
    """A command group that imports the module of a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(
            importlib.import_module(f"ensemble_kit.cli.{module}"), attribute
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"Unknown command '{args[0]}'. {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="ensemble-kit", message="%(prog)s %(version)s")
def app() -> None:
    """Train, combine and evaluate ensembles of image classifiers, without leakage between patients."""


class Terminated(BaseException):
    """SIGTERM arrived. Unwinds the stack, so that workers end and locks are released."""


def main() -> None:
    """Run the command line. Every expected error becomes one message and an exit code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    try:
        streams.prepare()
        app(prog_name="ensemble-kit", standalone_mode=False)
        sys.stdout.flush()
    except EnsembleKitError as error:
        if "--json" in sys.argv:
            _print_json(error)
        _end(f"error: {error}", error.exit_code)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end(STOPPED, 130)
    except Terminated:
        _end(STOPPED, 143)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        fault = machine_fault(error)
        if fault is None:
            raise
        _end(f"error: {fault}", fault.exit_code)
    finally:
        streams.flush()


def _print_json(error: EnsembleKitError) -> None:
    """The error as JSON on standard output: its code, exit code and message."""
    import json

    values = {"code": error.code, "exit_code": error.exit_code, "message": str(error)}
    with contextlib.suppress(OSError):
        click.echo(json.dumps({"error": values}))


def _on_terminate(*_: object) -> None:
    # A second signal ends the process at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


def _end(text: str, code: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        click.echo(printable(text), err=True)
    # Ctrl-C inside an `exec` of a library (e.g. of a dataclass) leaves a flag in the
    # interpreter, which then ends by the signal and ignores the exit code. The next `exec` clears it.
    exec("")
    sys.exit(code)
