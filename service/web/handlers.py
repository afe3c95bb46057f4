"""Answer a request in its protocol: decode, predict, encode.

A handler takes the body and a few headers of a request; it knows neither Flask nor the server.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np

from ..errors import BadInput, TooLarge, count
from ..protocols import mlflow, open_inference
from ..protocols.codec import JSON, render_json, unpack
from ..protocols.explanations import encode_explanations
from ..protocols.seldon import messages as seldon
from ..protocols.seldon import plain
from ..protocols.seldon.feedback import decode_feedback, encode_summary
from ..rows import Limits, Rows, Totals, Verdict
from ..serving.detector import Detector
from ..serving.feedback import FeedbackMatcher
from ..serving.predictor import Predictor
from .admission import NUMBER, SHORT, RowLimit, estimate_rows
from .health import HEALTH, SELDON_PING, asks_readiness
from .request import Header

MODEL_VERSION = "X-Model-Version"
_JSON_TYPE = (b"content-type", JSON.encode())
_VERSION, _JSON_LENGTH = MODEL_VERSION.lower().encode(), open_inference.JSON_LENGTH.lower().encode()

MOST_EXPLAINED = 10_000
"""The largest number of features that one answer names, all its outliers together."""

MOST_CONTRIBUTIONS = 1_000_000
"""The largest number of contributions in one answer: about 20 MB of JSON."""

# The end of a datatype -> the bytes of its numbers; the smallest first.
_SIZES = {b'T8"': 1, b'BOOL"': 1, b'16"': 2, b'32"': 4, b'64"': 8}

_NO_LIMIT = nullcontext()

TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"

Encoder = Callable[[seldon.Message, Verdict, Totals, dict[str, Any]], dict[str, Any]]


@dataclass(slots=True)
class Answer:
    """An HTTP response in any protocol."""

    status: int
    body: bytes
    content_type: str = JSON
    version: str = ""
    """The version of the model that made this answer; empty if none did."""
    retry_after: int | None = None
    """Seconds after which the same request may succeed."""
    json_length: int | None = None
    """Bytes of JSON at the start of the body, if binary tensors follow."""

    @property
    def headers(self) -> list[Header]:
        """Return the headers that depend on the answer."""
        is_json = self.content_type is JSON
        headers = [
            _JSON_TYPE if is_json else (b"content-type", self.content_type.encode()),
            (b"content-length", b"%d" % len(self.body)),
        ]
        if self.version:
            headers.append((_VERSION, self.version.encode()))
        if self.json_length is not None:
            headers.append((_JSON_LENGTH, b"%d" % self.json_length))
        if self.retry_after is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


@dataclass(frozen=True)
class Wanted:
    """The options of the query, and how a Seldon answer is encoded."""

    encode: Encoder = seldon.encode_labels
    scores: bool = False
    explain: int = 0
    """How many features to name for each outlier."""
    pvalues: bool = False


LABELS = Wanted()


@dataclass(frozen=True)
class Handlers:
    """Answer the requests of each protocol; raise a `Refusal` for one that is not answered."""

    predictor: Predictor
    limits: Limits
    new_puid: Callable[[], str]
    """Makes an id for a prediction that has none."""
    matcher: FeedbackMatcher
    row_limit: RowLimit
    model_name: str = "isoserve"
    unit: Mapping[str, str] = field(default_factory=dict)
    """Name and image of this unit of a Seldon graph, for `meta.requestPath`; empty elsewhere."""
    show_metrics: bool = True
    """Whether Seldon's answers have `meta.metrics`."""

    def seldon(
        self,
        body: bytes,
        content_type: str = JSON,
        query: str = "",
        wanted: Wanted = LABELS,
        trace_id: str = "",
    ) -> Answer:
        """Answer a Seldon message in its own form; it may be in the body or the query.

        `trace_id` is recorded with the rows, as in the other protocols.
        """
        with self.admit(body or query.encode()):
            message = seldon.decode_request(body, content_type, query, self.limits)
            message.meta = seldon.name_meta(message.meta, self.new_puid, self.unit)
            detector = self.predictor.detector
            rows = detector.columns.encode(message.table)
            _check_explained(len(rows), wanted.explain, detector)
            verdict, totals = self._predict(
                detector, rows, message.puid, wanted.pvalues, trace_id=trace_id
            )
            tags = _tags(detector, rows, verdict, wanted)
            return self._seldon(wanted.encode(message, verdict, totals, tags), verdict.version)

    def seldon_plain(self, body: bytes, trace_id: str = "") -> Answer:
        """Answer a Seldon message in a JSON body; one with a single row takes a shorter way."""
        detector = self.predictor.detector
        row = None
        if self.show_metrics and not self.unit:
            row = plain.read_row(body, detector.model.features)
        if row is None:
            return self.seldon(body, trace_id=trace_id)
        puid = self.new_puid()
        verdict, totals = self.predictor.predict(detector, Rows(row), puid, False, trace_id)
        return Answer(200, plain.write_row(verdict, totals, puid), JSON, verdict.version)

    def seldon_echo(self, body: bytes, content_type: str, query: str) -> Answer:
        """Return a Seldon message as it came; its rows are neither scored nor counted."""
        with self.admit(body or query.encode()):
            payload, meta = seldon.decode_echo(body, content_type, query, self.limits)
            meta = seldon.name_meta(meta, self.new_puid, self.unit)
            totals, threshold = self.predictor.counts.totals(), self.predictor.detector.threshold
            return self._seldon(seldon.encode_echo(payload, meta, totals, threshold))

    def seldon_feedback(self, body: bytes, content_type: str, query: str) -> Answer:
        """Store a Seldon Feedback, from the body or the query, and answer with the figures."""
        with self.admit(body or query.encode()):
            feedback = decode_feedback(body, content_type, query, self.limits, self.new_puid)
            summary = self.matcher.record(feedback.statement)
        totals, threshold = self.predictor.counts.totals(), self.predictor.detector.threshold
        return self._seldon(encode_summary(feedback, totals, threshold, summary, self.unit))

    def open_inference(
        self, body: bytes, encoding: str, json_length: str | None, trace_id: str = ""
    ) -> Answer:
        """Answer an inference request; `encoding` and `json_length` are two of its headers."""
        body = unpack(body, encoding, self.limits.body_bytes)
        with self.admit(body, _number_bytes(body) if json_length else NUMBER):
            request = open_inference.decode_request(body, json_length, self.limits)
            puid, detector = request.id or self.new_puid(), self.predictor.detector
            try:
                rows = detector.columns.encode(request.table)
            except BadInput as error:
                raise request.explain(error) from error
            if explains := open_inference.CONTRIBUTIONS in request.outputs:
                _check_contributions(len(rows), len(detector.model.features))
            verdict, _ = self._predict(
                detector,
                rows,
                puid,
                open_inference.PVALUE in request.outputs,
                "score_samples" in request.outputs,
                trace_id,
            )
            shares = detector.explain(rows) if explains else None
            answer, length = open_inference.encode_answer(
                request, puid, self.model_name, verdict, shares
            )
        content_type = JSON if length is None else "application/octet-stream"
        return Answer(200, answer, content_type, verdict.version, json_length=length)

    def invocations(
        self,
        body: bytes,
        content_type: str,
        encoding: str = "",
        wanted: Wanted = LABELS,
        trace_id: str = "",
    ) -> Answer:
        """Answer a table as MLflow's scoring server does."""
        body = unpack(body, encoding, self.limits.body_bytes)
        with self.admit(body):
            table = mlflow.decode_request(body, content_type, self.limits)
            detector = self.predictor.detector
            rows = detector.columns.encode(table)
            _check_explained(len(rows), wanted.explain, detector)
            verdict, _ = self._predict(
                detector, rows, self.new_puid(), wanted.pvalues, trace_id=trace_id
            )
            explanations = _explain(detector, rows, verdict, wanted.explain)
            answer = mlflow.encode_answer(verdict, wanted.scores, explanations)
        return Answer(200, answer, version=verdict.version)

    def health(self, path: str) -> Answer:
        """Answer a health check; one about readiness scores a row, which is not counted."""
        if asks_readiness(path):
            self.score_a_row()
        value = HEALTH[path]
        if isinstance(value, str):
            return Answer(200, value.encode(), HTML if path == SELDON_PING else TEXT)
        return Answer(200, render_json(value))

    def score_a_row(self) -> None:
        """Check that the model can score a row; the row is not counted."""
        self.predictor.detector.try_row()

    def admit(self, body: bytes, number: int = NUMBER) -> AbstractContextManager[None]:
        """Count the rows of a body as in flight until the context ends; Unavailable over the limit.

        `number` is how many bytes a number takes in the body.
        """
        if len(body) <= SHORT:
            return _NO_LIMIT
        columns = len(self.predictor.detector.model.features)
        return self.row_limit.admit(estimate_rows(body, columns, number))

    def _predict(  # noqa: PLR0913, PLR0917 - what is asked of one prediction
        self,
        detector: Detector,
        rows: Rows,
        puid: str,
        with_pvalues: bool = False,
        with_samples: bool = False,
        trace_id: str = "",
    ) -> tuple[Verdict, Totals]:
        """Score, count and record rows; BadInput, before that, if there are no p-values to give."""
        if not with_pvalues:
            return self.predictor.predict(detector, rows, puid, with_samples, trace_id)
        pvalues = detector.pvalues
        if pvalues is None:
            raise BadInput(f"this model has no p-values: {detector.without_pvalues}")
        verdict, totals = self.predictor.predict(detector, rows, puid, with_samples, trace_id)
        verdict.pvalues = pvalues.of(verdict.scores)
        return verdict, totals

    def _seldon(self, answer: dict[str, Any], version: str = "") -> Answer:
        if not self.show_metrics:
            del answer["meta"]["metrics"]
        return Answer(200, render_json(answer), version=version)


def _number_bytes(body: bytes) -> int:
    """Return how many bytes a number takes at least in a binary body, by its first datatypes.

    >>> _number_bytes(b'{"inputs":[{"datatype":"FP64"},{"datatype":"INT8"}]}')
    1
    """
    start = body[:4096]
    return next((size for ending, size in _SIZES.items() if ending in start), 4)


def _check_explained(rows: int, most: int, detector: Detector) -> None:
    """Raise TooLarge, before rows are counted, if the answer could take hundreds of megabytes."""
    named = rows * min(most, len(detector.model.features))
    if named > MOST_EXPLAINED:
        raise TooLarge(
            f"explain={most} of {count(rows, 'row')} may name {named:,} features; at most "
            f"{MOST_EXPLAINED:,}: send fewer rows, or ask for fewer features"
        )


def _check_contributions(n_rows: int, width: int) -> None:
    """Raise TooLarge, before rows are counted, if the answer could take gigabytes."""
    if n_rows * width > MOST_CONTRIBUTIONS:
        raise TooLarge(
            f"contributions of {count(n_rows, 'row')} and {count(width, 'feature')} are "
            f"{n_rows * width:,} numbers; at most {MOST_CONTRIBUTIONS:,}: send fewer rows"
        )


def _tags(detector: Detector, rows: Rows, verdict: Verdict, wanted: Wanted) -> dict[str, Any]:
    """Return the tags that `?scores=1` and `?explain=K` add to a Seldon answer."""
    tags = seldon.score_tags(verdict) if wanted.scores else {}
    tags |= seldon.pvalue_tags(verdict) | seldon.id_tags(verdict)
    explanations = _explain(detector, rows, verdict, wanted.explain)
    return tags if explanations is None else tags | {"explanations": explanations}


def _explain(
    detector: Detector, rows: Rows, verdict: Verdict, most: int
) -> list[dict[str, Any]] | None:
    """Return the `most` columns that isolated each outlier; None if none are asked for."""
    if not most:
        return None
    outliers = np.flatnonzero(verdict.labels)
    chosen, columns = rows.at(outliers), detector.columns
    shares = detector.explain(chosen)
    return encode_explanations(
        outliers.tolist(), columns.names, columns.cells(chosen), shares, most
    )


def encode_error(path: str, text: str, status: int) -> bytes:
    """Return a failure as JSON in the protocol that `path` belongs to."""
    if path == "/v2" or path.startswith(("/v2/", "/v1/")):  # clients of KServe's V1 read it, too
        return render_json(open_inference.encode_error(text, status))
    if path in mlflow.PATHS:
        return render_json(mlflow.encode_error(text, status))
    return render_json(seldon.encode_error(text, status))


def body_too_large(most: int) -> TooLarge:
    """Return the refusal of a body over the limit."""
    return TooLarge(f"the body is larger than {most:,} bytes; send fewer rows at a time")
