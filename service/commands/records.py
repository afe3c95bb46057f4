"""Export, delete and compare the recorded rows."""

import typer
from rich.table import Table

from ..errors import BadInput, BadSetting
from ..settings import Settings
from ..state.records import as_table, delete_rows, open_records
from . import output
from .output import Before, Puid, TableFile

cli = typer.Typer(help="The record of recently scored rows.", no_args_is_help=True)


@cli.command("export")
def export(file: TableFile) -> None:
    """Write the recorded rows as a table; the service may be running."""
    rows = as_table(open_records(Settings.read().state_dir))
    output.export(rows, file, "row")


@cli.command("delete")
def delete(puid: Puid = None, before: Before = None) -> None:
    """Wipe recorded rows, also in quarantined files; the service may be running."""
    until = output.parse_choice(puid, before)
    rows = delete_rows(Settings.read().state_dir, puid, until)
    typer.echo(f"{rows:,} rows are wiped.")


@cli.command("drift")
def drift() -> None:
    """Print how far the recorded rows have moved from training, the largest drift first."""
    from ..model.file import load_model  # noqa: PLC0415
    from ..serving.detector import Detector  # noqa: PLC0415

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
    output.show(table)
