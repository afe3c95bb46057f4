"""What several commands share: options, and how a table is shown or written."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ..errors import BadInput, count
from ..tables.write import STDOUT, Column, write_table

TableFile = Annotated[
    Path, typer.Argument(help="A .csv or .parquet file to write; - writes CSV to standard output.")
]
Puid = Annotated[str | None, typer.Option(help="Everything about this prediction.")]
Before = Annotated[
    str | None,
    typer.Option(help="Everything first received before this time, such as 2026-01-31T12:00Z."),
]


def export(table: Mapping[str, Column], file: Path, unit: str) -> None:
    """Write a table, and say where it is; on standard error if the table is on standard output.

    `unit` is what its rows are called: "row", "line".
    """
    write_table(table, file)
    where = "on standard output" if file == STDOUT else f"in {file.absolute()}"
    number = len(table["time"])
    verb = "is" if number == 1 else "are"
    typer.echo(f"{count(number, unit)} {verb} {where}", err=file == STDOUT)


def parse_choice(puid: str | None, before: str | None) -> float | None:
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


def show(table: Table) -> None:
    """Print a table, 200 columns wide if the output is not a terminal."""
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)
