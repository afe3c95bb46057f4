"""Each protocol's way from the bytes that came to the bytes that go: decode, decide, encode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from .components import Desk
from .counts import Totals
from .doors import Gate, Stay, estimate_rows
from .errors import BadInput, Refusal, TooLarge
from .judge import Judge
from .rows import Limits, Verdict
from .seldon_feedback import decode_feedback, encode_learned
from .seldon_v1 import Message, decode_message, encode_labels
from .wire import decode_json, render_json

JSON = "application/json"
MODEL_VERSION = "X-Model-Version"

Encoder = Callable[[Message, Verdict, Totals, bool], dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What goes back over HTTP, whatever the protocol."""

    status: int
    body: bytes
    content_type: str = JSON
    version: str = ""
    """That of the model which made this answer, where one did."""
    retry_after: int | None = None
    """Seconds after which the same request may succeed."""

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Return the headers that depend on the answer."""
        headers = [("Content-Type", self.content_type)]
        if self.version:
            headers.append((MODEL_VERSION, self.version))
        if self.retry_after is not None:
            headers.append(("Retry-After", str(self.retry_after)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", "Bearer"))
        headers.append(("Content-Length", str(len(self.body))))
        return headers


@dataclass(frozen=True)
class Roads:
    """All roads lead to the desk. For a request that cannot be answered they raise a `Refusal`."""

    desk: Desk
    limits: Limits
    new_puid: Callable[[], str]
    """Names a prediction that came without a name."""
    judge: Judge
    gate: Gate

    def seldon(
        self, body: bytes, encode: Encoder = encode_labels, with_scores: bool = False
    ) -> Answer:
        """Answer a Seldon message in its own form."""
        with self.let_in(body):
            decode = partial(decode_message, limits=self.limits)
            message = decode_json(body, decode, self.limits.depth).named(self.new_puid)
            verdict, totals = self.desk.predict(message.rows, message.puid)
            answer = render_json(encode(message, verdict, totals, with_scores))
        return Answer(200, answer, version=verdict.version)

    def seldon_feedback(self, body: bytes) -> Answer:
        """Answer a Feedback of Seldon's."""
        with self.let_in(body):
            decode = partial(decode_feedback, limits=self.limits)
            depth = self.limits.depth + 1  # there are whole messages in it
            feedback = decode_json(body, decode, depth).named(self.new_puid)
            learned = self.judge.take(feedback)
        totals, threshold = self.desk.counts.totals(), self.desk.detector.threshold
        return Answer(200, render_json(encode_learned(feedback, totals, threshold, learned)))

    def let_in(self, body: bytes) -> Stay:
        """Let the rows of a body in, if the worker has not too many in work."""
        return self.gate.let_in(estimate_rows(body, len(self.desk.detector.model.features)))


def receive(read: Callable[[], bytes], announced: int, most: int) -> bytes:
    """Return a request's body, all of the bytes that were announced and not more than `most`.

    Raises:
        BadInput: it ends early, or is no proper HTTP body.
        TooLarge: it is larger than `most`.
    """
    try:
        body = read()
    except Refusal:
        raise
    except Exception as error:  # the server's own, for chunks that are none
        raise BadInput(f"the body cannot be read: {error}") from error
    if len(body) > most:
        raise body_too_large(most)
    if len(body) < announced:
        raise BadInput(f"the body ends early: {len(body)} of {announced} bytes came")
    return body


def body_too_large(most: int) -> TooLarge:
    """Say that a body is over the limit."""
    return TooLarge(f"the body is larger than {most:,} bytes; send fewer rows at a time")
