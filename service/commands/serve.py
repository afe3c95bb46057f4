"""Start the service, and list its settings."""

import structlog
import typer
from rich.table import Table

from ..capacity import require_memory
from ..model.pickles.formats import estimate_size
from ..server import Server, listen, warn_of_missing_key
from ..settings import Settings, describe_settings, unknown_variables
from ..telemetry.logs import configure_logs
from .output import show

cli = typer.Typer()


@cli.command()
def serve() -> None:
    """Start the service; also the default without a command."""
    settings = Settings.read()
    configure_logs(settings.log_level, in_thread=True)
    for sentence in unknown_variables():
        structlog.get_logger("isoserve").warning(sentence)
    listener = listen(settings)
    warn_of_missing_key(settings)
    size = estimate_size(settings.model)
    require_memory(size, settings.workers)
    from ..app import create_app  # noqa: PLC0415 - slow: check the settings first
    from ..model.kernels import are_compiled  # noqa: PLC0415 - numba, too

    require_memory(size, settings.workers, compiles=not are_compiled())

    app = create_app(settings)
    Server(app, settings, listener).run()


@cli.command("settings")
def show_settings() -> None:
    """Print every setting: its variable, default and meaning."""
    table = Table("variable", "default", "meaning", box=None)
    for row in describe_settings():
        table.add_row(*row)
    show(table)
