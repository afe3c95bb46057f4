"""Answer a request in its protocol: decode, predict, encode.

A handler knows the body and a few headers of a request, but neither Flask nor the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import numpy as np

from ..errors import BadInput, Refusal, TooLarge, count
from ..protocols import mlflow, open_inference
from ..protocols.codec import JSON, render_json, unpack
from ..protocols.seldon import messages as seldon
from ..protocols.seldon.feedback import decode_feedback, encode_summary
from ..rows import Limits, Rows, Totals, Verdict
from ..serving.detector import Detector
from ..serving.feedback import FeedbackMatcher
from ..serving.predictor import Predictor
from .admission import NUMBER, SHORT, RowLimit, estimate_rows

BYTES = "application/octet-stream"
MODEL_VERSION = "X-Model-Version"

MOST_EXPLAINED = 10_000
"""Features that one answer may name, of all its outliers."""

MOST_CONTRIBUTIONS = 1_000_000
"""Contributions in one answer, rows times features: some 20 MB of JSON."""

# The bytes of a number, by the end of its type's name; the smallest first.
_SIZES = {b'T8"': 1, b'BOOL"': 1, b'16"': 2, b'32"': 4, b'64"': 8}

_UNCOUNTED = nullcontext()

Encoder = Callable[[seldon.Message, Verdict, Totals, dict[str, Any]], dict[str, Any]]


@dataclass(slots=True)
class Answer:
    """An HTTP response in any protocol."""

    status: int
    body: bytes
    content_type: str = JSON
    version: str = ""
    """The version of the model that made this answer; empty where none did."""
    retry_after: int | None = None
    """Seconds after which the same request may succeed."""
    json_length: int | None = None
    """Bytes of JSON at the start of the body, where binary tensors follow."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Return the headers that depend on the answer."""
        headers = [("Content-Type", self.content_type)]
        if self.version:
            headers.append((MODEL_VERSION, self.version))
        if self.json_length is not None:
            headers.append((open_inference.JSON_LENGTH, str(self.json_length)))
        if self.retry_after is not None:
            headers.append(("Retry-After", str(self.retry_after)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", "Bearer"))
        headers.append(("Content-Length", str(len(self.body))))
        return headers


@dataclass(frozen=True)
class Wanted:
    """What the query asks a Seldon answer to hold."""

    encode: Encoder = seldon.encode_labels
    scores: bool = False
    explain: int = 0
    """How many features to name for each outlier."""


LABELS = Wanted()


@dataclass(frozen=True)
class Handlers:
    """Answer requests in each protocol; raise a `Refusal` for one that cannot be answered."""

    predictor: Predictor
    limits: Limits
    new_puid: Callable[[], str]
    """Makes the id of a prediction that came without one."""
    matcher: FeedbackMatcher
    row_limit: RowLimit
    model_name: str = "isoserve"
    unit: Mapping[str, str] = field(default_factory=dict)
    """Name and image of this unit of a Seldon graph, for `meta.requestPath`; empty without."""
    show_metrics: bool = True
    """Whether Seldon's answers carry `meta.metrics`."""

    def seldon(
        self, body: bytes, content_type: str = JSON, query: str = "", wanted: Wanted = LABELS
    ) -> Answer:
        """Answer a Seldon message in its own form, whichever way it came."""
        with self.admit(body or query.encode()):
            message = seldon.decode_request(body, content_type, query, self.limits)
            message.meta = seldon.name_meta(message.meta, self.new_puid, self.unit)
            detector = self.predictor.detector
            rows = detector.columns.encode(message.table)
            _check_explained(len(rows), wanted.explain, detector)
            verdict, totals = self.predictor.predict(detector, rows, message.puid)
            tags = _tags(detector, rows, verdict, wanted)
            return self._seldon(wanted.encode(message, verdict, totals, tags), verdict.version)

    def seldon_echo(self, body: bytes, content_type: str, query: str) -> Answer:
        """Pass a Seldon message on; none of its rows is scored or counted."""
        with self.admit(body or query.encode()):
            payload, meta = seldon.decode_echo(body, content_type, query, self.limits)
            meta = seldon.name_meta(meta, self.new_puid, self.unit)
            totals, threshold = self.predictor.counts.totals(), self.predictor.detector.threshold
            return self._seldon(seldon.encode_echo(payload, meta, totals, threshold))

    def seldon_feedback(self, body: bytes, content_type: str, query: str) -> Answer:
        """Answer a Feedback of Seldon's, whichever way it came."""
        with self.admit(body or query.encode()):
            feedback = decode_feedback(body, content_type, query, self.limits, self.new_puid)
            summary = self.matcher.record(feedback.statement)
        totals, threshold = self.predictor.counts.totals(), self.predictor.detector.threshold
        return self._seldon(encode_summary(feedback, totals, threshold, summary, self.unit))

    def open_inference(self, body: bytes, encoding: str, json_length: str | None) -> Answer:
        """Answer an inference request; the two texts are headers of it."""
        body = unpack(body, encoding, self.limits.body_bytes)
        with self.admit(body, _number_bytes(body) if json_length else NUMBER):
            request = open_inference.decode_request(body, json_length, self.limits)
            puid, detector = request.id or self.new_puid(), self.predictor.detector
            try:
                rows = detector.columns.encode(request.table)
            except BadInput as error:
                raise request.explain(error) from error
            if explains := request.wants(open_inference.CONTRIBUTIONS):
                _check_contributions(rows)
            with_samples = request.wants("score_samples")
            verdict, _ = self.predictor.predict(detector, rows, puid, with_samples)
            shares = detector.explain(rows) if explains else None
            answer, length = open_inference.encode_answer(
                request, puid, self.model_name, verdict, shares
            )
        kind = JSON if length is None else BYTES
        return Answer(200, answer, kind, verdict.version, json_length=length)

    def invocations(
        self, body: bytes, content_type: str, encoding: str = "", with_scores: bool = False
    ) -> Answer:
        """Answer a table as MLflow's scoring server does."""
        body = unpack(body, encoding, self.limits.body_bytes)
        with self.admit(body):
            table = mlflow.decode_request(body, content_type, self.limits)
            detector = self.predictor.detector
            rows = detector.columns.encode(table)
            verdict, _ = self.predictor.predict(detector, rows, self.new_puid())
            answer = mlflow.encode_answer(verdict, with_scores)
        return Answer(200, answer, version=verdict.version)

    def admit(self, body: bytes, number: int = NUMBER) -> AbstractContextManager[None]:
        """Hold the rows of a body against the limit of rows in flight; Unavailable beyond it.

        `number` is how many bytes a number of the body takes.
        """
        if len(body) <= SHORT:
            return _UNCOUNTED
        columns = len(self.predictor.detector.model.features)
        return self.row_limit.admit(estimate_rows(body, columns, number))

    def _seldon(self, answer: dict[str, Any], version: str = "") -> Answer:
        if not self.show_metrics:
            del answer["meta"]["metrics"]
        return Answer(200, render_json(answer), version=version)


def _number_bytes(body: bytes) -> int:
    """Return how many bytes a number of a binary body takes at least, as its first types say.

    >>> _number_bytes(b'{"inputs":[{"datatype":"FP64"},{"datatype":"INT8"}]}')
    1
    """
    start = body[:4096]
    return next((size for mark, size in _SIZES.items() if mark in start), 4)


def _check_explained(rows: int, most: int, detector: Detector) -> None:
    """Raise TooLarge, before anything is counted, for an answer of hundreds of megabytes."""
    named = rows * min(most, len(detector.model.features))
    if named > MOST_EXPLAINED:
        raise TooLarge(
            f"explain={most} of {count(rows, 'row')} may name {named:,} features; at most "
            f"{MOST_EXPLAINED:,}: send fewer rows, or ask for fewer features"
        )


def _check_contributions(rows: Rows) -> None:
    """Raise TooLarge, before anything is counted, for an answer of gigabytes."""
    n_rows, width = rows.values.shape
    if n_rows * width > MOST_CONTRIBUTIONS:
        raise TooLarge(
            f"contributions of {count(n_rows, 'row')} and {count(width, 'feature')} are "
            f"{n_rows * width:,} numbers; at most {MOST_CONTRIBUTIONS:,}: send fewer rows"
        )


def _tags(detector: Detector, rows: Rows, verdict: Verdict, wanted: Wanted) -> dict[str, Any]:
    """Return the tags that `?scores=1` and `?explain=K` add to a Seldon answer."""
    tags = seldon.score_tags(verdict) if wanted.scores else {}
    if wanted.explain:
        outliers = np.flatnonzero(verdict.labels)
        chosen = rows.at(outliers)
        shares = detector.explain(chosen)
        tags |= seldon.explain_tags(outliers.tolist(), chosen, shares, wanted.explain)
    return tags


def encode_error(path: str, text: str, status: int) -> bytes:
    """Return a failure as JSON in the protocol that `path` belongs to."""
    if path == "/v2" or path.startswith("/v2/"):
        return render_json(open_inference.encode_error(text, status))
    if path in mlflow.PATHS:
        return render_json(mlflow.encode_error(text, status))
    return render_json(seldon.encode_error(text, status))


def receive(read: Callable[[], bytes], announced: int, most: int) -> bytes:
    """Read the body of a request: as many bytes as were announced, and at most `most`.

    Raises:
        BadInput: it ends early, or is no proper HTTP body.
        TooLarge: it is larger than `most`.
    """
    try:
        body = read()
    except Refusal:
        raise
    except Exception as error:  # the server's own, for malformed chunks
        raise BadInput(f"the body cannot be read: {error}") from error
    if len(body) > most:
        raise body_too_large(most)
    if len(body) < announced:
        raise BadInput(f"the body ends early: {len(body)} of {announced} bytes came")
    return body


def body_too_large(most: int) -> TooLarge:
    """Return the refusal of a body over the limit."""
    return TooLarge(f"the body is larger than {most:,} bytes; send fewer rows at a time")
