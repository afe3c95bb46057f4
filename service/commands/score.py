"""Score tables of any size."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import BadInput
from ..settings import Settings
from ..threshold_choice import ThresholdChoice

if TYPE_CHECKING:
    from ..bulk.job import Job
    from ..bulk.scorer import Totals
    from ..model.content import ModelFile

_STDOUT = "-"

_Inputs = Annotated[
    list[str],
    typer.Argument(
        help="CSV, Parquet or Arrow files, globs, folders, addresses of fsspec, or -: standard "
        "input.",
        metavar="INPUT ...",
        show_default=False,
    ),
]
_Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        help="A .csv, .parquet or .arrow file, a folder (ending in /) for a file of each input, or "
        "-: standard output.",
    ),
]
_Model = Annotated[Path | None, typer.Option(help="By default ISOSERVE_MODEL.")]
_Threshold = Annotated[
    float | None,
    typer.Option(help="By default ISOSERVE_THRESHOLD or ISOSERVE_OUTLIER_SHARE, else 0."),
]
_Keep = Annotated[
    str | None,
    typer.Option(help="The columns to write beside what is added, such as id,amount; '' for none."),
]
_Explain = Annotated[
    int, typer.Option(min=0, help="Name so many columns that isolated each outlier most.")
]
_OnlyOutliers = Annotated[bool, typer.Option(help="Write the outliers only.")]
_Rejects = Annotated[
    str,
    typer.Option(
        help="A file (for an output folder: a folder) for rows that cannot be scored, with "
        "their reasons; else the first one ends the command."
    ),
]
_Resume = Annotated[
    bool, typer.Option(help="Leave out the files of the output folder that are done.")
]
_Format = Annotated[
    Literal["csv", "parquet", "arrow"] | None,
    typer.Option(help="What to write to standard output (csv) or a folder (as the inputs)."),
]
_Separator = Annotated[str, typer.Option(help="What separates the cells of a CSV file.")]
_Decimal = Annotated[
    Literal[".", ","] | None, typer.Option(help="The decimal mark; by default training's.")
]
_Encoding = Annotated[str, typer.Option(help="The encoding of a CSV file.")]
_Threads = Annotated[
    int, typer.Option(min=0, help="Threads that score; 0: one for each processor.")
]
_Engine = Annotated[
    Literal["threads", "dask"], typer.Option(help="Score here, or on a Dask cluster.")
]
_Scheduler = Annotated[
    str, typer.Option(help="Address of a Dask scheduler; by default workers start here.")
]

cli = typer.Typer()


@cli.command()
def score(  # noqa: PLR0913, PLR0917 -- options of a command
    inputs: _Inputs,
    output: _Output,
    model: _Model = None,
    threshold: _Threshold = None,
    keep: _Keep = None,
    explain: _Explain = 0,
    only_outliers: _OnlyOutliers = False,
    rejects: _Rejects = "",
    resume: _Resume = False,
    format: _Format = None,
    sep: _Separator = "",
    decimal: _Decimal = None,
    encoding: _Encoding = "",
    threads: _Threads = 0,
    engine: _Engine = "threads",
    scheduler: _Scheduler = "",
) -> None:
    """Score tables of any size: the scores of the service, bit for bit, in bounded memory.

    Adds the columns `score`, `outlier` (1 or 0) and, where the model's card knows it, `pvalue`.
    Nothing is counted or recorded.
    """
    request = _Request(
        inputs, output, resume, threads or _processors(), engine == "dask", scheduler,
        model, threshold, explain, only_outliers, rejects,
        None if keep is None else tuple(filter(None, map(str.strip, keep.split(",")))),
        format or "", (_read_separator(sep), decimal or "", encoding),
    )  # fmt: skip
    with _endings(output):
        _run(request)


@dataclass(frozen=True)
class _Request:
    """What the options say."""

    inputs: list[str]
    output: str
    resume: bool
    threads: int
    on_dask: bool
    scheduler: str
    model: Path | None
    threshold: float | None
    explain: int
    only_outliers: bool
    rejects: str
    keep: tuple[str, ...] | None
    kind: str
    reading: tuple[str, str, str]
    """The separator, the decimal mark and the encoding of CSV files; empty: not said."""


def _read_separator(text: str) -> str:
    separator = "\t" if text in ("\\t", "tab") else text
    if len(separator) > 1:
        raise BadInput(f"--sep {text!r} is no separator; one is ';', or 'tab'")
    return separator


def _run(request: _Request) -> None:
    """Score what is asked for, and say what was scored."""
    if request.scheduler and not request.on_dask:
        raise BadInput("--scheduler goes with --engine dask")
    try:
        from ..bulk.job import own_signals  # noqa: PLC0415 -- it takes a second
    except ImportError as error:
        raise BadInput(
            f"scoring files needs pyarrow ({error}): pip install 'isoserve[bulk]'"
        ) from error
    from ..bulk.summary import summarize  # noqa: PLC0415
    from ..tables.places import find_places  # noqa: PLC0415

    own_signals()
    places = find_places(request.inputs)
    file, job = _prepare(request)
    if request.resume and not job.is_folder:
        raise BadInput("--resume goes with an output folder: --output out/")
    began = time.monotonic()
    with _show_progress() as progress:
        totals = _score(request, file, job, places, progress)
    to_error = request.output == _STDOUT
    for line in summarize(totals, job.scorer.detector, time.monotonic() - began):
        typer.echo(line, err=to_error)
    if not to_error:
        typer.echo(f"written to {request.output}")


def _prepare(request: _Request) -> tuple[ModelFile, Job]:
    """Open the model; return its file, and the job with a scorer."""
    from ..bulk.job import Job  # noqa: PLC0415
    from ..bulk.scorer import BatchScorer  # noqa: PLC0415
    from ..model.content import read_model_file  # noqa: PLC0415
    from ..model.file import open_model  # noqa: PLC0415
    from ..serving.detector import Detector  # noqa: PLC0415
    from ..tables.batches import Choices  # noqa: PLC0415

    settings = Settings.read()
    if request.model is not None:
        settings = settings.model_copy(update={"model": request.model, "model_sha256": ""})
    choice = settings.choice if request.threshold is None else ThresholdChoice(request.threshold)
    file = read_model_file(settings.model)
    model = open_model(file, settings.require_card, settings.model_sha256)
    detector = Detector(model, by_name=settings.names == "match").flagging(choice)
    scorer = BatchScorer.one_thread(
        detector,
        explain=request.explain,
        only_outliers=request.only_outliers,
        rejects=bool(request.rejects),
    )
    reading = Choices(*request.reading)
    several = request.threads > 1
    return file, Job(
        scorer, request.output, request.keep, request.kind, request.rejects, reading, several
    )


def _score(
    request: _Request,
    file: ModelFile,
    job: Job,
    places: list[str],
    progress: Callable[[float, int], None],
) -> Totals:
    """Score the tables here or on a cluster."""
    from ..bulk.job import score_file, score_folder  # noqa: PLC0415
    from ..bulk.threads import Threads  # noqa: PLC0415

    if request.on_dask:
        from ..bulk.cluster import score_on_dask  # noqa: PLC0415

        return score_on_dask(
            job, file, places, request.resume, request.scheduler, request.threads, progress
        )
    engine = Threads(job.scorer, request.threads)
    if job.is_folder:
        return score_folder(job, engine, places, request.resume, progress)
    return score_file(job, engine, places, progress)


@contextmanager
def _show_progress() -> Iterator[Callable[[float, int], None]]:
    """Yield the function that shows the share that is done and the rows; it is quiet elsewhere."""
    if not sys.stderr.isatty():
        yield lambda share, rows: None
        return
    bar = Progress(
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %  {task.fields[rows]:,} rows  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=1.0, rows=0, rate="")

        def tell(share: float, rows: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{rows / elapsed:,.0f} rows/s" if elapsed else ""
            bar.update(task, completed=share, rows=rows, rate=rate)

        yield tell


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _what_is_left(output: str) -> str:
    if output == _STDOUT:
        return "standard output is not whole"
    is_folder = output.endswith("/") or Path(output).is_dir()
    return "--resume goes on where it stopped" if is_folder else "nothing was written"


class _Stopped(BaseException):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def _endings(output: str) -> Iterator[None]:
    """End with one sentence and the usual exit code on Ctrl-C and another signal."""

    def stop(number: int, _: Any) -> None:
        for one in (signal.SIGINT, signal.SIGTERM):  # a second one must not stop the clearing up
            signal.signal(one, signal.SIG_IGN)
        raise _Stopped(number)

    before = {}
    with suppress(ValueError):  # not in the main thread
        before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Stopped as stopped:
        typer.echo(f"isoserve: stopped; {_what_is_left(output)}", err=True)
        raise typer.Exit(128 + stopped.number) from None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
