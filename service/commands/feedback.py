"""Summarise, export and delete feedback."""

import typer
from rich.table import Table

from ..errors import count
from ..settings import Settings
from ..state.feedback.store import FeedbackStore, open_feedback
from ..truths import Confusion
from . import output
from .output import Before, Puid, TableFile

cli = typer.Typer(help="The feedback of clients.", no_args_is_help=True)


@cli.command("summary")
def summarize() -> None:
    """Print confusion counts, precision, recall, what they were measured on, and rewards."""
    store = _open()
    summary = store.read()
    table = Table("", "so far", f"last {summary.recent.rows:,}", box=None)
    for name in ("true_negative", "false_positive", "false_negative", "true_positive"):
        counts = (f"{getattr(one, name):,}" for one in (summary.total, summary.recent))
        table.add_row(name.replace("_", " ") + "s", *counts)
    total, recent = summary.total.figures(), summary.recent.figures()
    for name, figure in total.items():
        table.add_row(name, f"{figure:.4f}", f"{recent[name]:.4f}" if name in recent else "")
    output.show(table)
    typer.echo(_measured_on(summary.total))
    if versions := store.count_versions():
        listed = (f"{version} ({count(rows, 'row')})" for version, rows in versions.items())
        typer.echo(f"The rows were scored by the models {', '.join(listed)}.")
    typer.echo(f"{count(summary.rewarded, 'reward')} other than 0, in sum {summary.reward:,}.")
    typer.echo(f"{count(summary.unmatched, 'message')} about no known prediction.")


@cli.command("export")
def export(file: TableFile) -> None:
    """Write all feedback as a table, including entries that were revised later."""
    history = _open().history()
    output.export(history, file, "line")


@cli.command("delete")
def delete(puid: Puid = None, before: Before = None) -> None:
    """Delete feedback and its revisions; the service may be running."""
    until = output.parse_choice(puid, before)
    deleted = _open().delete(puid, until)
    typer.echo(f"{deleted:,} truths and rewards are deleted.")


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


def _open() -> FeedbackStore:
    settings = Settings.read()
    return open_feedback(settings.state_dir, settings.window)
