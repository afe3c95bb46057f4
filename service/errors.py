"""The errors that a client or an operator can act on.

    IsoserveError
    ├── BadSetting          the service does not start
    ├── BadModel            the model file is not loaded
    ├── CannotTrain         a training run stops and leaves no model
    └── Refusal             one request is answered with `status`
        ├── BadInput            400
        ├── Unauthorized        401
        ├── NotFound            404
        ├── MethodNotAllowed    405
        ├── TooSlow             408
        ├── Conflict            409
        ├── TooLarge            413
        ├── Unsupported         415
        └── Unavailable         503

The text of each is one sentence: what is wrong, where, and what to do.
"""

import difflib
import traceback
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

_LONGEST = 100
"""The most characters of a name, and the most names, that `nearest` compares."""


class IsoserveError(Exception):
    """The base class of the errors below; catch a specific one."""


class BadSetting(IsoserveError):
    """A setting is wrong; the text names the variable."""


class BadModel(IsoserveError):
    """A model file cannot be served; the text names the file, and `reason` is one of REASONS."""

    REASONS = ("file", "sha256", "pickle", "forest", "card", "scores", "features")
    """The step of `model.file` that failed; "features" are other columns than those served now."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class CannotTrain(IsoserveError):
    """Training needs another option, table or folder; the text names which."""


class Refusal(IsoserveError):
    """A request is refused; the client can correct it, or send it again later."""

    status = HTTPStatus.BAD_REQUEST
    retry_after: int | None = None
    """Seconds after which the same request may succeed."""


class BadInput(Refusal):
    """The request is not valid for its route."""


class Unauthorized(Refusal):
    """The request needs a key or token that it does not have."""

    status = HTTPStatus.UNAUTHORIZED


class NotFound(Refusal):
    """No such route, model or prediction."""

    status = HTTPStatus.NOT_FOUND


class MethodNotAllowed(Refusal):
    """The route exists, the method does not."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class Conflict(Refusal):
    """The request does not fit the model that is served."""

    status = HTTPStatus.CONFLICT


class TooLarge(Refusal):
    """The body is over a limit of bytes, rows, columns or depth."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class TooSlow(Refusal):
    """The body takes too long to arrive."""

    status = HTTPStatus.REQUEST_TIMEOUT


class Unsupported(Refusal):
    """The body has a type or compression that is not supported."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Unavailable(Refusal):
    """Something that the request needs does not work at the moment."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = 1


def count(number: int, noun: str) -> str:
    """Return a number with its noun: '1 row', '2 rows'."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def nearest(name: str, names: Sequence[str], likeness: float = 0.6) -> str:
    """Return a hint that names the most similar of `names`; empty if none is similar.

    `likeness` is the least similarity, from 0 to 1 (equal).
    """
    if len(name) > _LONGEST:  # comparing takes time and memory that grow with the text
        return ""
    names = [one for one in names if len(one) <= _LONGEST][:_LONGEST]
    close = difflib.get_close_matches(name, names, n=1, cutoff=likeness)
    return f" (is it {close[0]!r}?)" if close else ""


def explain(error: Exception) -> str:
    """Return one sentence about any error: what is wrong, where, and what to do."""
    if isinstance(error, IsoserveError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory; give the process more, or serve a smaller model"
    if isinstance(error, RuntimeError) and "thread" in str(error):
        return "the system gives no more threads; raise its limit of processes (ulimit -u)"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; look at the file, the disk and the limits"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}"
    return (
        f"{type(error).__name__}: {error} ({place}); this is a fault of isoserve: "
        "ISOSERVE_LOG_LEVEL=DEBUG shows where it came from"
    )
