"""The command line: `isoserve`, or `python -m service`, starts the service.

Each module of `commands` has a `cli`; here they become one. A command that needs slow libraries
imports them when it runs.
"""

import gc
import os
import signal
import sys
from typing import Any

_IS_PROGRAM = __name__ == "__main__" or sys.argv[0].endswith("isoserve")

if _IS_PROGRAM and sys.argv[1:] in ([], ["serve"]):
    # Exit at once on a signal during imports and the model load; without a handler, process 1 of a
    # container ignores SIGTERM. Later gunicorn handles signals.
    for _signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_signal, lambda *_: os._exit(0))
    gc.disable()  # what is loaded now stays; `server` enables it before workers are forked


class _NoPandas:
    """Hides pandas, which pyarrow imports where it is installed: a second and 40 MB for nothing."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        """Raise for pandas; let others find the rest."""
        if name == "pandas":
            raise ModuleNotFoundError("no pandas while scoring", name=name)


if _IS_PROGRAM and sys.argv[1:2] == ["score"]:
    sys.meta_path.insert(0, _NoPandas)

for _number in (0, 1, 2):  # a closed one would be the number of the next file that is opened
    try:
        os.fstat(_number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115

from typing import Annotated

import typer
from click import ClickException
from typer.core import TyperGroup

from . import __version__
from .commands import counts, doctor, feedback, model, records, score, serve, state, threshold
from .errors import explain


class _Commands(TyperGroup):
    """Commands that end with one sentence instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, ClickException):
            raise
        except BrokenPipeError:  # nobody reads any more, as in `threshold | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
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
for _module in (serve, model, score, threshold, doctor):  # their commands are commands of `cli`
    cli.add_typer(_module.cli)
cli.add_typer(counts.cli, name="counts")
cli.add_typer(records.cli, name="records")
cli.add_typer(feedback.cli, name="feedback")
cli.add_typer(state.cli, name="state")


@cli.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Start the service, unless a command is named."""
    if version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        serve.serve()


if __name__ == "__main__":
    cli(prog_name="python -m service")
