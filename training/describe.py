"""The command line that describes a forest of your own: it writes the card of a model file.

    python -m training.describe models/mine.joblib my.csv --label fraud

The forest is not trained again, and its file stays as it is. The table is the one that it was
fitted on, or one of the same columns.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from service.errors import CannotTrain, IsoserveError
from training.train import Label, parse_keep_cols

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="a file of pickle or joblib")]
TablePath = Annotated[
    Path, typer.Argument(metavar="TABLE", help="a CSV, Parquet or Arrow file, also packed")
]

KeepCols = Annotated[
    str | None,
    typer.Option("--keep_cols", help="the columns of the forest; by default as it was fitted"),
]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": lambda name: name.replace("-", "_")},
)


@app.command()
def describe_file(
    model: ModelPath,
    table: TablePath,
    keep_cols: KeepCols = None,
    label: Label = None,
) -> None:
    """Write the card of a fitted forest beside its file, so that it is served with names."""
    # These imports take a second or two; --help does without them.
    from service.model.card import card_path  # noqa: PLC0415
    from service.model.content import read_model_file  # noqa: PLC0415
    from service.tables.read import read_table  # noqa: PLC0415
    from training.export import describe, write_card  # noqa: PLC0415
    from training.tables import from_file  # noqa: PLC0415

    file = read_model_file(model)
    forest = _load(file)
    names = getattr(forest, "feature_names_in_", None)
    columns = parse_keep_cols(keep_cols) if keep_cols else None
    if columns is None:  # all, also those that training would leave out
        columns = [name for name in read_table(table).names if name != label]
        columns = columns if names is None else list(names)
    dataset = from_file(table, keep_cols=columns, label=label)
    card = describe(forest, dataset)
    write_card(model, replace(card, files={model.name: file.sha256}))
    typer.echo(f"{card_path(model)} describes {model}: {', '.join(dataset.features[:8])}")


def _load(file: Any) -> Any:
    """Return the fitted forest of a model file, by scikit-learn."""
    from service.model.file import load_fitted  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another version, whose scores are compared when served
        try:
            return load_fitted(file)
        except ValueError as error:
            raise CannotTrain(
                f"{file.path} is of a version that the scikit-learn here cannot read, so it cannot "
                "be described; it can be served without a card"
            ) from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 1 for an error, 2 for wrong usage."""
    try:
        app(args=arguments, standalone_mode=False)
    except ModuleNotFoundError as error:
        typer.echo(f"error: {error.name} is not installed: pip install 'isoserve[train]'", err=True)
        return 1
    except (IsoserveError, typer.TyperException) as error:
        text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        typer.echo(f"error: {text}", err=True)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
