"""The command line: `isoserve`, or `python -m service`, starts the service."""

import os
import signal
import sys

_IS_PROGRAM = __name__ == "__main__" or sys.argv[0].endswith("isoserve")

if _IS_PROGRAM and sys.argv[1:] in ([], ["serve"]):
    # Exit at once on a signal during imports and the model load; without a handler, process 1 of a
    # container ignores SIGTERM. Later gunicorn handles signals.
    for _signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_signal, lambda *_: os._exit(0))

for _number in (0, 1, 2):  # a closed one would be the number of the next file that is opened
    try:
        os.fstat(_number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from click import ClickException
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from . import __version__
from .errors import BadInput, BadSetting, count, explain
from .server import Server, listen, warn_of_missing_key
from .settings import Settings, describe_settings, unknown_variables
from .state.counts import reset_counts
from .state.feedback.store import FeedbackStore, open_feedback
from .state.records import as_table, delete_rows, open_records
from .tables.write import STDOUT, Column, write_table
from .telemetry.logs import configure_logs
from .truths import Confusion


class _Commands(TyperGroup):
    """Commands that end with one sentence instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, ClickException):
            raise
        except Exception as error:
            typer.echo(f"isoserve: {explain(error)}", err=True)
            if os.environ.get("ISOSERVE_LOG_LEVEL", "").upper() == "DEBUG":
                raise
            raise typer.Exit(1) from None


cli = typer.Typer(
    cls=_Commands,
    help="Serve an Isolation Forest over HTTP. Settings come from the environment: see `settings`.",
    no_args_is_help=False,
    add_completion=False,
)


counts_cli = typer.Typer(help="The running counts.", no_args_is_help=True)
records_cli = typer.Typer(help="The record of recently scored rows.", no_args_is_help=True)
feedback_cli = typer.Typer(help="The feedback of clients.", no_args_is_help=True)
cli.add_typer(counts_cli, name="counts")
cli.add_typer(records_cli, name="records")
cli.add_typer(feedback_cli, name="feedback")

_Options = Annotated[
    list[str] | None, typer.Argument(help="Options of training.", metavar="OPTION ...")
]
_TableFile = Annotated[
    Path, typer.Argument(help="A .csv or .parquet file to write; - writes CSV to standard output.")
]
_Puid = Annotated[str | None, typer.Option(help="Everything about this prediction.")]
_Before = Annotated[
    str | None,
    typer.Option(help="Everything first received before this time, such as 2026-01-31T12:00Z."),
]


@cli.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Start the service, unless a command is named."""
    if version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        serve()


@cli.command()
def serve() -> None:
    """Start the service; also the default without a command."""
    settings = Settings.read()
    configure_logs(settings.log_level, in_thread=True)
    for sentence in unknown_variables():
        structlog.get_logger("isoserve").warning(sentence)
    listener = listen(settings)
    warn_of_missing_key(settings)
    from .app import create_app  # noqa: PLC0415 - slow: check the settings first

    app = create_app(settings)
    Server(app, settings, listener).run()


@cli.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(options: _Options = None) -> None:
    """Train a model: the same as `python -m training.train`; see `train --help`."""
    program = Path(__file__).parents[1] / "training/train.py"  # `service` imports no `training`
    os.execv(sys.executable, [sys.executable, str(program), *(options or [])])  # noqa: S606


@cli.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A model file; by default ISOSERVE_MODEL.")
    ] = None,
) -> None:
    """Check a model file as the service does at start, and print the result of each step."""
    settings = Settings.read()
    from .model.file import open_model, read_model_file  # noqa: PLC0415 - it takes seconds

    open_model(
        read_model_file(file or settings.model),
        settings.require_card,
        settings.model_sha256,
        report=lambda step, result: typer.echo(f"{step:<8}{result}"),
    )
    typer.echo("It can be served.")


@cli.command("settings")
def show_settings() -> None:
    """Print every setting: its variable, default and meaning."""
    table = Table("variable", "default", "meaning", box=None)
    for row in describe_settings():
        table.add_row(*row)
    _print(table)


@counts_cli.command("reset")
def reset() -> None:
    """Reset all counts to 0; the service must not be running."""
    folder = Settings.read().state_dir
    reset_counts(folder)
    typer.echo(f"The counts in {folder.absolute()} are reset to 0.")


@records_cli.command("export")
def export(file: _TableFile) -> None:
    """Write the recorded rows as a table; the service may be running."""
    rows = as_table(open_records(Settings.read().state_dir))
    _export(rows, file, "rows")


@records_cli.command("delete")
def delete(puid: _Puid = None, before: _Before = None) -> None:
    """Wipe recorded rows, also in quarantined files; the service may be running."""
    until = _parse_choice(puid, before)
    rows = delete_rows(Settings.read().state_dir, puid, until)
    typer.echo(f"{rows:,} rows are wiped.")


@records_cli.command("drift")
def drift() -> None:
    """Print how far the recorded rows have moved from training, the largest drift first."""
    from .model.file import load_model  # noqa: PLC0415
    from .serving.detector import Detector  # noqa: PLC0415

    settings = Settings.read()
    model = load_model(settings.model, settings.require_card)
    baseline = Detector(model).baseline
    if baseline is None:
        raise BadSetting(f"{settings.model} has no card to compare the recorded rows with")
    found = baseline.measure(open_records(settings.state_dir).scored_by)
    if found.score is None:
        raise BadInput(f"{found.rows:,} rows of this model are recorded; drift needs 1,000")
    table = Table("column", "population stability index", box=None)
    table.add_row("(score)", f"{found.score:.4f}")
    for feature, index in found.largest(len(found.features)):
        table.add_row(feature, f"{index:.4f}")
    _print(table)


@feedback_cli.command("summary")
def summarize() -> None:
    """Print confusion counts, precision, recall, what they were measured on, and rewards."""
    store = _feedback()
    summary = store.read()
    table = Table("", "so far", f"last {summary.recent.rows:,}", box=None)
    for name in ("true_negative", "false_positive", "false_negative", "true_positive"):
        counts = (f"{getattr(one, name):,}" for one in (summary.total, summary.recent))
        table.add_row(name.replace("_", " ") + "s", *counts)
    total, recent = summary.total.figures(), summary.recent.figures()
    for name, figure in total.items():
        table.add_row(name, f"{figure:.4f}", f"{recent[name]:.4f}" if name in recent else "")
    _print(table)
    typer.echo(_measured_on(summary.total))
    if versions := store.count_versions():
        listed = (f"{version} ({count(rows, 'row')})" for version, rows in versions.items())
        typer.echo(f"The rows were scored by the models {', '.join(listed)}.")
    typer.echo(f"{count(summary.rewarded, 'reward')} other than 0, in sum {summary.reward:,}.")
    typer.echo(f"{count(summary.unmatched, 'message')} about no known prediction.")


def _measured_on(total: Confusion) -> str:
    """Return which rows precision and recall were measured on."""
    others = total.rows - total.flagged
    if not others:
        return (
            f"Precision is measured on {count(total.flagged, 'flagged row')}. Recall is not known: "
            "no row that was not flagged has a truth."
        )
    return (
        f"Precision is measured on {count(total.flagged, 'flagged row')}, recall on these and "
        f"{count(others, 'row')} that {'was' if others == 1 else 'were'} not flagged."
    )


@feedback_cli.command("export")
def export_feedback(file: _TableFile) -> None:
    """Write all feedback as a table, including entries that were revised later."""
    history = _feedback().history()
    _export(history, file, "lines")


@feedback_cli.command("delete")
def delete_feedback(puid: _Puid = None, before: _Before = None) -> None:
    """Delete feedback and its revisions; the service may be running."""
    until = _parse_choice(puid, before)
    deleted = _feedback().delete(puid, until)
    typer.echo(f"{deleted:,} truths and rewards are deleted.")


def _export(table: Mapping[str, Column], file: Path, unit: str) -> None:
    """Write a table, and say where it is; on standard error if the table is on standard output."""
    write_table(table, file)
    where = "on standard output" if file == STDOUT else f"in {file.absolute()}"
    typer.echo(f"{len(table['time']):,} {unit} are {where}", err=file == STDOUT)


def _feedback() -> FeedbackStore:
    settings = Settings.read()
    return open_feedback(settings.state_dir, settings.window)


def _parse_choice(puid: str | None, before: str | None) -> float | None:
    """Return --before as seconds since 1970, or None if --puid was chosen; BadInput for both.

    A time without a zone is UTC.
    """
    if (puid is None) == (before is None):
        raise BadInput("say which rows: either --puid or --before")
    if before is None:
        return None
    try:
        time = datetime.fromisoformat(before)
    except ValueError as error:
        raise BadInput(
            f"{before!r} is not a time; one is 2026-01-31 or 2026-01-31T12:00Z"
        ) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _print(table: Table) -> None:
    """Print a table, 200 columns wide if the output is not a terminal."""
    console = Console()
    console.print(table, width=console.width if console.is_terminal else 200)


if __name__ == "__main__":
    cli(prog_name="python -m service")
