"""Look at everything that an operator can get wrong."""

from pathlib import Path

import typer

cli = typer.Typer()


@cli.command()
def doctor() -> None:
    """Look at settings, model, state, machine and provisioning, and say what to do; exit 0 or 1."""
    from ..doctor import examine  # noqa: PLC0415 - slow
    from ..telemetry.logs import configure_logs  # noqa: PLC0415

    configure_logs("ERROR")  # what the start would log is reported
    report = examine.examine(Path(), lambda finding: typer.echo(examine.show(finding)))
    typer.echo(examine.summarize(report))
    raise typer.Exit(int(report.count("fault") > 0))
