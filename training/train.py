"""The command line for training: it reads a table and writes a model and its card.

    python -m training.train --dataset my.csv --label fraud

`python training/train.py` does the same, and so does `python train.py` in that folder.
"""

from __future__ import annotations

import ast
import io
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during imports shows no traceback

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if not __package__:  # run as a file: perhaps not installed, so imports need the repository's path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.errors import CannotTrain, IsoserveError, count
from service.tables.batches import Choices
from training.datasets import POOL, SPENDING_OUTLIERS, Dataset, listed, oddities

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest

    from service.model.card import Card, Evaluation
    from service.rows import Floats
    from training.forest import Auto
    from training.sources import Source

_MOST_NUMBERS = 40  # columns of numbers that are printed one by one

_SECONDS = 30.0  # between lines about a long step where there is no terminal

_STOPPED = 130  # the usual exit code after Ctrl-C
_ROOT = Path(__file__).resolve().parents[1]

_progress = Console(stderr=True, highlight=False)
_summary = Console(highlight=False)

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,  # brackets in help texts are not markup
    pretty_exceptions_enable=False,
    # Options may be written with dashes: --keep-cols.
    context_settings={"token_normalize_func": lambda name: name.replace("-", "_")},
)


DatasetName = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="'spending', 'kddcup99', or a file: CSV, Parquet or Arrow, also packed; a glob or a "
        "folder of such files, or their address, as s3://bucket/folder",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        min=1,
        help="rows to draw uniformly, by default all; of kddcup99 50000 by default, with the "
        "contamination as the share of attacks",
    ),
]
KeepCols = Annotated[
    str | None,
    typer.Option(
        "--keep_cols",
        help="the only columns to train on, as \"a,b\" or \"['a','b']\"; by default all that are "
        "fit for it, of kddcup99 all but 'service'",
    ),
]
Contamination = Annotated[
    str | None,
    typer.Option(
        "--contamination",
        help="'auto', or the share of the training rows to call outliers, at most 0.5; by default "
        f"auto, of the sample 'spending' {SPENDING_OUTLIERS}, which is its share of outliers",
    ),
]
Trees = Annotated[int, typer.Option("--n_estimators", min=1, help="trees in the forest")]
MaxSamples = Annotated[
    str,
    typer.Option(
        "--max_samples",
        help="rows for each tree: 'auto' (256), a share up to 1, or a count above 1",
    ),
]
MaxFeatures = Annotated[
    str,
    typer.Option(
        "--max_features", help="columns for each tree: a share up to 1, or a count above 1"
    ),
]
SavePath = Annotated[
    Path | None,
    typer.Option(
        "--save_path",
        help="folder for model.pickle and model.json; the repository's models/ by default",
        show_default=False,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        help="a column of 0 and 1 (an outlier), or of two words: used to evaluate, never to train. "
        "Rows without a label are trained on",
    ),
]
LabelOutlier = Annotated[
    str | None,
    typer.Option("--label_outlier", help="the value of the label that marks an outlier, as yes"),
]
ColumnKinds = Annotated[
    str,
    typer.Option(
        "--columns",
        help="what columns are, where they are taken for something else: "
        '"amount,country:category,when:date,-note" uses amount, says what two are and leaves out '
        "note. Kinds: number, flag, category, text, date, id",
        show_default=False,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id",
        help="a column that names the rows: not trained on, returned with each answer; by default "
        "the first one that looks like it",
    ),
]
NoMissing = Annotated[
    bool, typer.Option("--no_missing", help="refuse missing cells, which are trained on otherwise")
]
Separator = Annotated[
    str,
    typer.Option(
        "--sep", help="what separates the cells of a CSV file, as ';' or tab", show_default=False
    ),
]
DecimalMark = Annotated[
    str,
    typer.Option("--decimal", help="the decimal mark of a CSV file, . or ,", show_default=False),
]
Encoding = Annotated[
    str,
    typer.Option("--encoding", help="the encoding of a CSV file, as latin-1", show_default=False),
]
PoolRows = Annotated[
    int,
    typer.Option(
        "--pool",
        min=1,
        help="the most rows to hold in memory; of a larger table the trees grow from so many, "
        "drawn uniformly, and all rows are scored",
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, max=2**32 - 1, help="the same seed gives the same model"),
]
NoSave = Annotated[bool, typer.Option("--no_save", help="train and evaluate, write nothing")]
IfMissing = Annotated[
    bool, typer.Option("--if_missing", help="do nothing if there is already a model")
]
Full = Annotated[bool, typer.Option("--full", help="all of kddcup99, not the 10 percent file")]
DataHome = Annotated[
    Path | None, typer.Option("--data_home", help="scikit-learn's data folder, for kddcup99")
]


@app.command()
def train(  # noqa: PLR0913, PLR0917 -- each is an option of the command line
    dataset: DatasetName = "spending",
    samples: Samples = None,
    keep_cols: KeepCols = None,
    contamination: Contamination = None,
    n_estimators: Trees = 100,
    max_samples: MaxSamples = "auto",
    max_features: MaxFeatures = "1.0",
    save_path: SavePath = None,
    label: Label = None,
    label_outlier: LabelOutlier = None,
    columns: ColumnKinds = "",
    id: IdColumn = None,
    no_missing: NoMissing = False,
    sep: Separator = "",
    decimal: DecimalMark = "",
    encoding: Encoding = "",
    pool: PoolRows = POOL,
    seed: Seed = 16,
    no_save: NoSave = False,
    if_missing: IfMissing = False,
    full: Full = False,
    data_home: DataHome = None,
) -> None:
    """Train an Isolation Forest and save it with its card, ready to be served."""
    started = time.perf_counter()
    # These imports take a second or two; --help and wrong options do without them.
    from training import export  # noqa: PLC0415
    from training.forest import fit_forest  # noqa: PLC0415
    from training.sources import Source  # noqa: PLC0415
    from training.tables import Options  # noqa: PLC0415

    share = parse_share(contamination or _usual_share(dataset))
    fit = partial(
        fit_forest,
        contamination=share,
        n_estimators=n_estimators,
        max_samples="auto" if max_samples == "auto" else parse_amount("--max_samples", max_samples),
        max_features=parse_amount("--max_features", max_features),
        seed=seed,
    )
    source = Source(
        name=dataset,
        samples=samples,
        columns=None if keep_cols is None else parse_keep_cols(keep_cols),
        seed=seed,
        contamination=share,
        full=full,
        data_home=data_home,
        table=Options(
            columns=columns,
            label=label,
            label_outlier=label_outlier,
            id=id,
            missing=not no_missing,
            choices=parse_choices(sep, decimal, encoding),
            pool=pool,
        ),
    )
    folder = None if no_save else _folder(save_path)
    if folder is not None:
        if if_missing and (folder / export.MODEL_FILE).exists():
            _say(f"{folder / export.MODEL_FILE} is there already")
            return
        export.check_folder(folder)
    forest, card = _fit_and_describe(source, fit, count(n_estimators, "tree"))
    with _on_ctrl_c(signal.SIG_IGN):  # two files are written, or none
        path = None if folder is None else export.save_model(folder, forest, card)
    _summarise(card, forest.max_samples_, path, time.perf_counter() - started)


def _fit_and_describe(
    source: Source, fit: Callable[[Floats], IsolationForest], trees: str
) -> tuple[IsolationForest, Card]:
    """Read, fit and score, and report each step."""
    from training.export import describe  # noqa: PLC0415
    from training.spread import describe_whole, score_whole  # noqa: PLC0415

    with _step(f"reading {source.name}") as watch:
        training, held_out = source.read(watch)
    for note in training.notes:
        _say(f"{training.name}: {note}")
    _print_columns(training)
    for oddity in oddities(training, held_out):
        _say(f"warning: {oddity}")
    with _step(f"fitting {trees} on {_size(training)}"):
        forest = fit(training.X)
    with _step("scoring") as watch:
        if training.whole is None:
            return forest, describe(forest, training, held_out)
        spread = score_whole(forest, training.whole, watch)
        return forest, describe_whole(describe(forest, training, held_out), forest, spread)


def _usual_share(dataset: str) -> str:
    """Return the default of `--contamination` for a dataset."""
    return str(SPENDING_OUTLIERS) if dataset == "spending" else "auto"


def parse_share(text: str) -> float | Auto:
    """Read `--contamination`."""
    if text == "auto":
        return "auto"
    number = _number(text)
    if not 0 < number <= 0.5:
        raise CannotTrain(
            f"--contamination {text} is neither 'auto' nor a share above 0 and up to 0.5"
        )
    return number


def parse_amount(option: str, text: str) -> float:
    """Read a share up to 1 as a float, and a count above 1 as an int; `1` means all.

    >>> parse_amount("--max_samples", "1"), parse_amount("--max_samples", "256.")
    (1.0, 256)
    """
    number = _number(text)
    if 0 < number <= 1:
        return number
    if number > 1 and number.is_integer():
        return int(number)
    raise CannotTrain(f"{option} {text} is neither a share up to 1 nor a whole number above 1")


def parse_choices(sep: str, decimal: str, encoding: str) -> Choices:
    """Read `--sep`, `--decimal` and `--encoding`."""
    sep = {"tab": "\t", "\\t": "\t"}.get(sep, sep)
    if len(sep) > 1:
        raise CannotTrain(f"--sep {sep} is not a single character, or tab")
    if decimal not in ("", ".", ","):
        raise CannotTrain(f"--decimal {decimal} is neither . nor ,")
    return Choices(sep, decimal, encoding)


def parse_keep_cols(text: str) -> list[str]:
    """Read names that are separated by commas, or in a Python list.

    >>> parse_keep_cols("['srv_count', 'target']"), parse_keep_cols("mean, sd")
    (['srv_count', 'target'], ['mean', 'sd'])
    """
    if not text.lstrip().startswith(("[", "(")):
        names = [name.strip() for name in text.split(",")]
    else:
        try:
            names = list(ast.literal_eval(text.strip()))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise CannotTrain(f"--keep_cols {text} is not a Python list of names") from error
    if not names or not all(isinstance(name, str) and name for name in names):
        raise CannotTrain(f"--keep_cols {text} does not give a name for each column")
    return names


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for an error, 2 for wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may not be valid text
    try:
        with _on_ctrl_c(_stop):
            app(args=arguments, standalone_mode=False)
    except ModuleNotFoundError as error:
        _say(f"error: {error.name} is not installed; training needs: pip install 'isoserve[train]'")
        return 1
    except (IsoserveError, typer.TyperException) as error:
        text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        _say(f"error: {text}")
        return getattr(error, "exit_code", 1)
    return 0


@contextmanager
def _on_ctrl_c(handler: Any) -> Iterator[None]:
    """Handle Ctrl-C by `handler`, unless this process ignores it as one in the background does."""
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(*_: Any) -> None:
    """End at once. An exception would be lost in a callback, or be told as another one."""
    with suppress(RuntimeError):  # Ctrl-C came while this was written to
        sys.stdout.flush()
    show_cursor = "\n\x1b[?25h" if _progress.is_terminal else ""
    os.write(2, f"{show_cursor}stopped\n".encode())
    os._exit(_STOPPED)


def _number(text: str) -> float:
    """Return a text as a number, NaN if it is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _folder(save_path: Path | None) -> Path:
    """Return the absolute folder to save in, by default the repository's models/."""
    if save_path is None:
        return (_ROOT if _in_checkout() else Path.cwd()) / "models"
    if save_path.suffix == ".pickle":
        raise CannotTrain(
            f"--save_path {save_path}: give a folder; model.pickle is written into it"
        )
    return save_path.resolve()


def _in_checkout() -> bool:
    return (_ROOT / "pyproject.toml").is_file()


def _serving_command(path: Path) -> str:
    """Return the command that serves a model, to be typed in the current folder."""
    if command := os.environ.get("ISOSERVE_SERVE_COMMAND"):  # set in a container
        return command
    setting = f"ISOSERVE_MODEL={shlex.quote(str(path))} "
    if not _in_checkout():
        return f"{setting}isoserve serve"
    if path.parent == _ROOT / "models":
        setting = ""
    folder = "" if Path.cwd() == _ROOT else f"-C {shlex.quote(str(_ROOT))} "
    return f"{setting}make {folder}serve"


def _say(text: str) -> None:
    """Print one line to stderr, as it is."""
    _progress.print(Text(text), soft_wrap=True)


@contextmanager
def _step(text: str) -> Iterator[Callable[[int, float], None]]:
    """Show a long step: with its seconds on a terminal, elsewhere as a line now and then.

    Yields what is called with the rows so far, and with their share of the table.
    """
    if not _progress.is_terminal:
        _say(f"{text} ...")
        yield _Pace(text, _say, _SECONDS)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=_progress) as progress:
        task = progress.add_task(text, total=None)
        yield _Pace(text, lambda line: progress.update(task, description=line), 0.2)
        progress.update(task, total=1, completed=1)


class _Pace:
    """Tell, at most every `seconds`, how many rows are done, how fast, and how long it takes."""

    def __init__(self, text: str, show: Callable[[str], None], seconds: float) -> None:
        self._text, self._show, self._seconds = text, show, seconds
        self._began = self._shown = time.monotonic()

    def __call__(self, rows: int, share: float) -> None:
        now = time.monotonic()
        if now - self._shown < self._seconds:
            return
        self._shown, took = now, now - self._began
        left = f", {took / share - took:.0f} s left" if share else ""
        self._show(f"{self._text}: {rows:,} rows ({share:.0%}), {rows / took:,.0f} a second{left}")


def _size(dataset: Dataset) -> str:
    rows = count(len(dataset), "row")
    if dataset.whole is not None:
        rows = f"{len(dataset):,} of {count(dataset.whole.rows, 'row')}"
    return f"{rows} of {count(len(dataset.features), 'column')}"


def _print_columns(dataset: Dataset) -> None:
    """Print what each column of a file was taken for; of many alike numbers the first ones."""
    if not dataset.recognised:
        return
    table = Table("column", "kind", "example", "gaps", "what is done", "why", box=None)
    numbers = 0
    for column in dataset.recognised:
        numbers += column.kind == "number" and not column.gaps
        if numbers > _MOST_NUMBERS and column.kind == "number" and not column.gaps:
            continue
        gaps = f"{column.gaps:.1%}" if column.gaps else ""
        cells = (column.name, column.kind, column.example, gaps, column.done, column.why)
        table.add_row(*map(Text, cells))
    (_summary if _summary.is_terminal else Console(width=200)).print(table)
    if numbers > _MOST_NUMBERS:
        _summary.print(f"and {count(numbers - _MOST_NUMBERS, 'more column')} of numbers")
    if with_gaps := [column.name for column in dataset.columns if column.missing]:
        _say(
            f"missing cells are trained on, and taken in requests, in {listed(with_gaps)}; "
            "to refuse them: --no_missing"
        )


def _summarise(card: Card, rows_each: int, path: Path | None, seconds: float) -> None:
    """Print what was trained, its evaluation, how to choose a threshold and how to serve it."""
    from training.advice import advise  # noqa: PLC0415

    names = listed([column.name for column in card.columns])
    lines = {
        "table": f"{card.dataset}, {count(card.rows, 'row')}: {names}",
        "forest": f"{count(card.parameters['n_estimators'], 'tree')} of {count(rows_each, 'row')} "
        f"each, contamination {card.parameters['contamination']}, seed {card.seed}",
        "outliers": f"{card.training_outlier_share:.2%} of the training rows",
    }
    if card.pool is not None:
        lines["forest"] += f", from {card.pool:,} rows drawn uniformly (--pool)"
    if card.quality is not None:
        lines |= _quality_lines(card.quality)
    lines |= advise(card, "python -m service threshold" if _in_checkout() else "isoserve threshold")
    if path is not None:
        lines["model"] = f"{path} ({path.stat().st_size / 1e6:.1f} MB, its card beside it)"
        lines["serve it"] = _serving_command(path)
    lines["took"] = f"{seconds:.1f} s"
    for title, text in lines.items():
        _summary.print(Text.assemble((f"{title:<9} ", "bold"), text), soft_wrap=True)


def _quality_lines(quality: Evaluation) -> dict[str, str]:
    rows = count(quality.rows, "held-out row" if quality.held_out else "training row")
    lines = {
        "evaluated": f"on {rows}, {quality.outliers:,} of them labelled outliers",
        "ranking": f"ROC AUC {quality.roc_auc:.4f}, average precision "
        f"{quality.average_precision:.4f}",
        "flagging": f"precision {quality.precision:.4f}, recall {quality.recall:.4f}, "
        f"F1 {quality.f1:.4f}",
    }
    if quality.recall_by_kind:
        shares = (f"{kind} {share:.1%}" for kind, share in quality.recall_by_kind.items())
        lines["found"] = ", ".join(shares)
    return lines


if __name__ == "__main__":
    sys.exit(main())
