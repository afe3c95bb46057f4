"""Score on a Dask cluster: the same scorer on each worker, the same results in the same order.

Each worker gets the model file once and opens it as the service does, with its golden rows: a
machine that would score differently is refused. Into one output file the batches are scored by the
workers and written by the process that calls. Into an output folder each worker reads and writes
whole files, which all of them must reach under the same names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import Client, LocalCluster, WorkerPlugin, as_completed, get_worker
from distributed.scheduler import KilledWorker

from .. import __version__
from ..errors import BadInput, IsoserveError, count
from ..model.content import ModelFile
from ..model.file import open_model
from ..serving.detector import Detector
from .job import Job, Progress, begin_folder, score_file, score_one
from .scorer import BatchScorer, Part, Totals
from .threads import AHEAD, Batch, Threads, map_ahead

_NAME = "isoserve"

_WAIT = 30
"""Seconds to wait for the scheduler, and for the first worker."""


def score_on_dask(  # noqa: PLR0913, PLR0917 -- a job, and where it is done
    job: Job,
    file: ModelFile,
    places: Sequence[str],
    resume: bool,
    address: str,
    threads: int,
    progress: Progress,
) -> Totals:
    """Score tables on the cluster at an address, or on `threads` workers that are started here.

    Raises:
        BadInput: as for other engines; or there is no cluster, or its workers died.
    """
    with _connect(address, threads) as client, _sentences():
        client.register_plugin(_Scorer(file, job), name=_NAME)
        if job.is_folder:
            return _score_files(client, job, places, resume, progress)
        return score_file(job, _Batches(client), places, progress)


class _Scorer(WorkerPlugin):  # type: ignore[misc]
    """Holds the scorer on a worker, also on one that comes later or starts again."""

    def __init__(self, file: ModelFile, job: Job) -> None:
        self._file, self._version = file, __version__
        scorer = job.scorer
        self._threshold, self._by_name = scorer.detector.threshold, scorer.detector.by_name
        self._choices = {
            "explain": scorer.explain,
            "only_outliers": scorer.only_outliers,
            "rejects": scorer.rejects,
        }
        self._job = _PlainJob(job.output, job.keep, job.kind, job.rejects, job.reading)

    def setup(self, worker: Any) -> None:
        """Open the model file; BadInput if the worker has another version of isoserve."""
        if self._version != __version__:
            raise BadInput(
                f"worker {worker.address} has isoserve {__version__}, and {self._version} is "
                "needed: install the same version everywhere"
            )
        detector = Detector(open_model(self._file), self._threshold, self._by_name)
        scorer = BatchScorer.one_thread(detector, **self._choices)
        self.job = self._job.with_scorer(scorer)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "job"}


@dataclass(frozen=True)
class _PlainJob:
    """A job without its scorer, as it is sent."""

    output: str
    keep: Any
    kind: str
    rejects: str
    reading: Any

    def with_scorer(self, scorer: BatchScorer) -> Job:
        return Job(scorer, self.output, self.keep, self.kind, self.rejects, self.reading, False)


def _job() -> Job:
    job: Job = get_worker().plugins[_NAME].job
    return job


def _score_batch(batch: Batch) -> Part:
    return _job().scorer.score(*batch)


def _score_file(place: str, target: str) -> Totals:
    job = _job()
    return score_one(job, Threads(job.scorer, 1), place, target, lambda share, rows: None)


class _Batches:
    """The engine that sends each batch to a worker."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._most = AHEAD * max(sum(client.nthreads().values()), 1)

    def map(self, batches: Iterator[Batch]) -> Iterator[Part]:
        """Yield the scored batches in their order; those of a killed worker are done again."""
        return map_ahead(
            batches, lambda batch: self._client.submit(_score_batch, batch, pure=False), self._most
        )


def _score_files(
    client: Client, job: Job, places: Sequence[str], resume: bool, progress: Progress
) -> Totals:
    journal, left, totals = begin_folder(job, places, resume)
    tasks = {client.submit(_score_file, *pair, pure=False): pair for pair in left}
    try:
        for i, future in enumerate(as_completed(tasks)):
            found = future.result()
            journal.add(*tasks[future], found)
            totals.add(found)
            progress((i + 1) / len(left), totals.rows)
    finally:
        client.cancel(list(tasks))
    return totals


@contextmanager
def _connect(address: str, threads: int) -> Iterator[Client]:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if not address:
        with (
            LocalCluster(
                n_workers=threads,
                threads_per_worker=1,
                dashboard_address=None,
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(address, timeout=_WAIT)
    except (OSError, ValueError) as error:
        raise BadInput(f"there is no Dask scheduler at {address} ({error})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WAIT)
        except TimeoutError as error:
            raise BadInput(
                f"the Dask scheduler at {address} has no workers; start some: dask worker {address}"
            ) from error
        yield client


@contextmanager
def _sentences() -> Iterator[None]:
    """Raise BadInput for what goes wrong with workers."""
    try:
        yield
    except IsoserveError:
        raise
    except KilledWorker as error:
        raise BadInput(
            f"{count(error.allowed_failures + 1, 'worker')} died over the same rows; give the "
            "workers more memory, or look at their logs"
        ) from error
    except ModuleNotFoundError as error:
        raise BadInput(
            f"a worker lacks {error.name}: install isoserve[dask] {__version__} on all of them"
        ) from error
