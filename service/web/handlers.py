"""Answer a request in its protocol: decode, predict, encode.

A handler takes a request and its whole body; it knows neither Flask nor the server.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np

from ..errors import BadInput, TooLarge
from ..protocols import mlflow, open_inference
from ..protocols.codec import JSON, NO_JSON, render_json, unpack
from ..protocols.explanations import (
    check_contributions,
    check_explained,
    encode_explanations,
)
from ..protocols.seldon import messages as seldon
from ..protocols.seldon import plain
from ..protocols.seldon.feedback import decode_feedback, encode_summary
from ..protocols.sizes import SHORT, estimate_rows
from ..rows import Limits, Rows, Totals, Verdict
from ..serving.detector import Detector
from ..serving.feedback import FeedbackMatcher
from ..serving.predictor import Predictor
from .admission import RowLimit
from .health import HEALTH, SELDON_PING, asks_readiness
from .query import Options, read_options, refuse_options
from .request import Header, Request

MODEL_VERSION = "X-Model-Version"
_JSON_TYPE = (b"content-type", JSON.encode())
_VERSION, _JSON_LENGTH = MODEL_VERSION.lower().encode(), open_inference.JSON_LENGTH.lower().encode()

SHORT_BYTES, _SHORT_ROWS = 16 * 1024, 1024
"""The longest body, and the most rows, that are read and scored in about 2 ms."""

_PACKED = 8  # times as many rows are in a packed body as it looks like, about

_NO_LIMIT = nullcontext()

TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"

_NOT_SCORED = dict.fromkeys(
    ("scores", "explain", "pvalues"), "its answer has no rows that were scored"
)

V2_INFER = "/v2/models/<model>/infer"

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


Handler = Callable[[Request, bytes], Answer]
"""Answers a request, whose body is whole; raises a `Refusal` for one that is not answered."""


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

    def predictions(self) -> Mapping[str, Handler]:
        """Return the routes of predictions, as Flask writes them, and their handlers."""
        seldon = ("/predict", "/api/v1.0/predictions", "/api/v0.1/predictions")
        return dict.fromkeys(seldon, self.predict) | {
            V2_INFER: self.open_inference,
            "/invocations": self.invocations,
        }

    def predict(self, request: Request, body: bytes) -> Answer:
        """Answer a Seldon message with labels; one with a single row takes a shorter way."""
        detector = self.predictor.detector
        row = None
        if _is_plain_json(request) and self.show_metrics and not self.unit:
            row = plain.read_row(body, detector.model.features)
        if row is None:
            return self.seldon(request, body)
        puid = self.new_puid()
        verdict, totals = self.predictor.predict(detector, Rows(row), puid, request.trace_id)
        return Answer(200, plain.write_row(verdict, totals, puid), JSON, verdict.version)

    def seldon(
        self, request: Request, body: bytes, encode: Encoder = seldon.encode_labels
    ) -> Answer:
        """Answer a Seldon message in its own form; it may be in the body or the query."""
        options = read_options(request)
        content_type, query = _read_places(request)
        with self.admit(body or request.query):
            message = seldon.decode_request(body, content_type, query, self.limits)
            message.meta = seldon.name_meta(message.meta, self.new_puid, self.unit)
            detector = self.predictor.detector
            rows = detector.columns.encode(message.table)
            check_explained(len(rows), len(detector.model.features), options.explain)
            verdict, totals = self.predictor.predict(
                detector, rows, message.puid, request.trace_id, with_pvalues=options.pvalues
            )
            tags = _tags(detector, rows, verdict, options)
            return self._seldon(encode(message, verdict, totals, tags), verdict.version)

    def seldon_rows(self, request: Request, body: bytes) -> Answer:
        """Answer a Seldon message with its rows as they came."""
        return self.seldon(request, body, seldon.encode_rows)

    def seldon_echo(self, request: Request, body: bytes) -> Answer:
        """Return a Seldon message as it came; its rows are neither scored nor counted."""
        refuse_options(request, _NOT_SCORED)
        content_type, query = _read_places(request)
        with self.admit(body or request.query):
            payload, meta = seldon.decode_echo(body, content_type, query, self.limits)
            meta = seldon.name_meta(meta, self.new_puid, self.unit)
            totals, threshold = self.predictor.counts.totals(), self.predictor.detector.threshold
            return self._seldon(seldon.encode_echo(payload, meta, totals, threshold))

    def seldon_feedback(self, request: Request, body: bytes) -> Answer:
        """Store a Seldon Feedback, from the body or the query, and answer with the figures."""
        refuse_options(request, _NOT_SCORED)
        content_type, query = _read_places(request)
        with self.admit(body or request.query):
            feedback = decode_feedback(body, content_type, query, self.limits, self.new_puid)
            summary = self.matcher.record(feedback.statement)
        totals, threshold = self.predictor.counts.totals(), self.predictor.detector.threshold
        return self._seldon(encode_summary(feedback, totals, threshold, summary, self.unit))

    def open_inference(self, request: Request, body: bytes) -> Answer:
        """Answer an inference request."""
        refuse_options(request, open_inference.OTHER_OPTIONS)
        body = unpack(body, request.header(b"content-encoding"), self.limits.body_bytes)
        json_length = request.header(_JSON_LENGTH) if _JSON_LENGTH in request.headers else None
        with self.admit(body, binary=bool(json_length)):
            asked = open_inference.decode_request(body, json_length, self.limits)
            puid, detector = asked.id or self.new_puid(), self.predictor.detector
            try:
                rows = detector.columns.encode(asked.table)
            except BadInput as error:
                raise asked.explain(error) from error
            if explains := open_inference.CONTRIBUTIONS in asked.outputs:
                check_contributions(len(rows), len(detector.model.features))
            verdict, _ = self.predictor.predict(
                detector,
                rows,
                puid,
                request.trace_id,
                "score_samples" in asked.outputs,
                open_inference.PVALUE in asked.outputs,
            )
            shares = detector.explain(rows) if explains else None
            answer, length = open_inference.encode_answer(
                asked, puid, self.model_name, verdict, shares
            )
        content_type = JSON if length is None else "application/octet-stream"
        return Answer(200, answer, content_type, verdict.version, json_length=length)

    def invocations(self, request: Request, body: bytes) -> Answer:
        """Answer a table as MLflow's scoring server does."""
        options = read_options(request)
        body = unpack(body, request.header(b"content-encoding"), self.limits.body_bytes)
        with self.admit(body):
            table = mlflow.decode_request(body, request.header(b"content-type"), self.limits)
            detector = self.predictor.detector
            rows = detector.columns.encode(table)
            check_explained(len(rows), len(detector.model.features), options.explain)
            verdict, _ = self.predictor.predict(
                detector,
                rows,
                self.new_puid(),
                request.trace_id,
                with_pvalues=options.pvalues,
            )
            explanations = _explain(detector, rows, verdict, options.explain)
            answer = mlflow.encode_answer(verdict, options.scores, explanations)
        return Answer(200, answer, version=verdict.version)

    def health(self, request: Request, _body: bytes = b"") -> Answer:
        """Answer a health check; one about readiness scores a row, which is not counted."""
        if asks_readiness(request.path):
            self.score_a_row()
        value = HEALTH[request.path]
        if isinstance(value, str):
            return Answer(200, value.encode(), HTML if request.path == SELDON_PING else TEXT)
        return Answer(200, render_json(value))

    def score_a_row(self) -> None:
        """Check that the model can score a row; the row is not counted."""
        self.predictor.detector.try_row()

    def are_short(self, request: Request, body: bytes) -> bool:
        """Return whether they answer a request in about 2 ms, so that the event loop may wait."""
        if b"content-encoding" in request.headers or b"explain" in request.query:
            return False
        if len(body) <= SHORT:
            return True
        if len(body) > SHORT_BYTES or b'"contributions"' in body:
            return False
        return self.count_rows(request, body) <= _SHORT_ROWS

    def count_rows(self, request: Request, body: bytes) -> int:
        """Return about how many rows a body holds, without reading it."""
        columns = len(self.predictor.detector.model.features)
        rows = estimate_rows(body, columns, _JSON_LENGTH in request.headers)
        return rows * _PACKED if b"content-encoding" in request.headers else rows

    def admit(self, body: bytes, binary: bool = False) -> AbstractContextManager[None]:
        """Count the rows of a body as in flight until the context ends; Unavailable over the limit.

        `binary` tells that the body holds binary tensors.
        """
        if len(body) <= SHORT:
            return _NO_LIMIT
        columns = len(self.predictor.detector.model.features)
        return self.row_limit.admit(estimate_rows(body, columns, binary))

    def _seldon(self, answer: dict[str, Any], version: str = "") -> Answer:
        if not self.show_metrics:
            del answer["meta"]["metrics"]
        return Answer(200, render_json(answer), version=version)


def _is_plain_json(request: Request) -> bool:
    """Return whether nothing but the body says what is asked for."""
    headers = request.headers
    is_json = headers.get(b"content-type") == b"application/json"
    return is_json and not request.query and b"content-encoding" not in headers


def _read_places(request: Request) -> tuple[str, str]:
    """Return where, beside the body, a Seldon message is: the content type, and the query."""
    if request.header(b"content-encoding").lower() not in ("", "identity"):
        raise BadInput(f"{NO_JSON}: a body with Content-Encoding is not read here; send it plain")
    return request.header(b"content-type"), request.query.decode("latin-1")


def _tags(detector: Detector, rows: Rows, verdict: Verdict, options: Options) -> dict[str, Any]:
    """Return the tags that the options, and ids that were sent, add to a Seldon answer."""
    tags = seldon.score_tags(verdict) if options.scores else {}
    tags |= seldon.pvalue_tags(verdict) | seldon.id_tags(verdict)
    explanations = _explain(detector, rows, verdict, options.explain)
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
