"""The command line: `python -m service` starts the service."""

from __future__ import annotations

from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.table import Table

from . import __version__
from .app import create_app
from .errors import IsoserveError
from .server import Server, configure_logs
from .settings import Settings, describe_settings, unknown_variables

cli = typer.Typer(
    help="Serve an Isolation Forest over HTTP. Settings come from the environment: see `settings`.",
    no_args_is_help=False,
    add_completion=False,
)


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
    """Start the service (what happens without a command, too)."""
    try:
        settings = Settings.read()
        configure_logs(settings.log_level)
        for sentence in unknown_variables():
            structlog.get_logger("isoserve").warning(sentence)
        app = create_app(settings)
    except IsoserveError as error:
        typer.echo(f"isoserve: {error}", err=True)
        raise typer.Exit(1) from error
    Server(app, settings).run()


@cli.command("settings")
def show_settings() -> None:
    """Print every setting: its variable, default and meaning."""
    table = Table("variable", "default", "meaning", box=None)
    for row in describe_settings():
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    cli(prog_name="python -m service")
