"""Start the service, and list its settings."""

import typer
from rich.table import Table

from ..settings import Settings, describe_settings, unknown_variables
from .output import show

cli = typer.Typer()


@cli.command()
def serve() -> None:
    """Start the service; also the default without a command."""
    import structlog  # noqa: PLC0415 - other commands do without a server and its logs

    from ..capacity import require_memory  # noqa: PLC0415
    from ..model.pickles.formats import estimate_size  # noqa: PLC0415
    from ..server import Server, listen, warn_of_missing_key  # noqa: PLC0415
    from ..telemetry.logs import configure_logs  # noqa: PLC0415

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
