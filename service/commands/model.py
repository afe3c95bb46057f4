"""Train a model, and check a model file."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..settings import Settings

cli = typer.Typer()

_Options = Annotated[
    list[str] | None, typer.Argument(help="Options of training.", metavar="OPTION ...")
]


@cli.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(options: _Options = None) -> None:
    """Train a model: the same as `python -m training.train`; see `train --help`."""
    program = Path(__file__).parents[2] / "training/train.py"  # `service` imports no `training`
    os.execv(sys.executable, [sys.executable, str(program), *(options or [])])  # noqa: S606


@cli.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A model file; by default ISOSERVE_MODEL.")
    ] = None,
) -> None:
    """Check a model file as the service does at start, and print the result of each step."""
    settings = Settings.read()
    from ..model.content import read_model_file  # noqa: PLC0415 - it takes seconds
    from ..model.file import open_model  # noqa: PLC0415 - it takes seconds

    open_model(
        read_model_file(file or settings.model),
        settings.require_card,
        settings.model_sha256,
        report=lambda step, result: typer.echo(f"{step:<8}{result}"),
    )
    typer.echo("It can be served.")
