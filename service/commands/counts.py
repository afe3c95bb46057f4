"""Reset the running counts."""

import typer

from ..settings import Settings
from ..state.counts import reset_counts

cli = typer.Typer(help="The running counts.", no_args_is_help=True)


@cli.command("reset")
def reset() -> None:
    """Reset all counts to 0; the service must not be running."""
    folder = Settings.read().state_dir
    reset_counts(folder)
    typer.echo(f"The counts in {folder.absolute()} are reset to 0.")
