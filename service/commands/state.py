"""Back up and restore the state folder."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import BadInput, count
from ..settings import Settings
from ..state.backup import pack_state, restore_backup, write_backup
from ..tables.write import STDOUT

cli = typer.Typer(help="The state folder: counts, records, feedback.", no_args_is_help=True)


@cli.command("backup")
def backup(
    file: Annotated[
        Path, typer.Argument(help="A file to write (.tar.gz); - writes to standard output.")
    ],
) -> None:
    """Write counts, records, feedback and the threshold into a file; the service may be running."""
    folder = Settings.read().state_dir
    manifest = _write_to_output(folder) if file == STDOUT else _write_to_file(folder, file)
    where = "on standard output" if file == STDOUT else f"in {file.absolute()}"
    typer.echo(f"{_describe(manifest)} of {folder.absolute()} are {where}", err=file == STDOUT)


@cli.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="A backup; - reads standard input.")],
) -> None:
    """Unpack a backup into the state folder, which must be empty; start the service afterwards."""
    folder = Settings.read().state_dir
    if file == STDOUT:
        manifest = restore_backup(sys.stdin.buffer, folder)
    else:
        with file.open("rb") as stream:
            manifest = restore_backup(stream, folder)
    typer.echo(f"{_describe(manifest)} of {manifest['when']} are in {folder.absolute()}")


def _write_to_file(folder: Path, file: Path) -> dict[str, Any]:
    try:
        return write_backup(folder, file)
    except OSError as error:
        raise BadInput(
            f"{file.absolute()} cannot be written ({error.strerror}); name a file elsewhere, or - "
            "for standard output"
        ) from error


def _write_to_output(folder: Path) -> dict[str, Any]:
    if sys.stdout.isatty():
        raise BadInput("a backup is not text; write it into a file: `state backup - > FILE`")
    manifest: dict[str, Any] = {}
    for part in pack_state(folder, folder, manifest):
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()
    return manifest


def _describe(manifest: dict[str, Any]) -> str:
    files = manifest["files"]
    return f"{count(len(files), 'file')} ({', '.join(files)})"
