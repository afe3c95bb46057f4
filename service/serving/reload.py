"""Another model, or another threshold, while requests are answered.

The worker that is asked reads the file once, checks it (`model.file`), scores a row, writes the
audit row and publishes the checked bytes as a generation (`state.generations`). A thread in each
worker sees the new number, builds the same model from those bytes and gives the predictor a new
`Detector`. A request reads `predictor.detector` once, so one model and one threshold answer it. If
anything fails, the old model stays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ..errors import BadModel, Unavailable, count
from ..model.card import Card, card_path
from ..model.file import Model, ModelFile, open_model, read_model_file
from ..rows import Rows
from ..state.audit import AuditLog
from ..state.generations import Generation, Generations
from .detector import Detector
from .predictor import Predictor

logger = logging.getLogger(__name__)

POLL = 0.1
"""Seconds between two looks at the number of the current generation."""

LOOK = 0.5
"""Seconds between two looks at the model file, where it is watched."""

_SETTLE = 2.0  # seconds that a file and its card have to become a pair
_PATIENCE = 15.0  # seconds that all workers together have to take a generation


@dataclass(frozen=True)
class Rules:
    """What holds for any model of this service; from the settings."""

    path: Path
    require_card: bool
    pinned: str
    threshold: float

    def open(self, file: ModelFile, passed: bool = False, strict: bool = False) -> Model:
        """Take a file through all steps; `strict`: a card that lies there has to be its own."""
        require_card = self.require_card or (strict and file.card is not None)
        return open_model(file, require_card, self.pinned, passed)


@dataclass(frozen=True)
class Change:
    """What is served now, and what was before."""

    old: Detector
    new: Detector


class ModelReloader:
    """Changes what is on the predictor, in all workers."""

    def __init__(
        self, predictor: Predictor, generations: Generations, audit: AuditLog, rules: Rules
    ) -> None:
        self._desk, self._generations, self._audit, self._rules = (
            predictor,
            generations,
            audit,
            rules,
        )
        self._first = predictor.detector.model
        self._lock = threading.Lock()
        self._number = 0
        self._content: tuple[str, bytes | None] | None = None
        """SHA-256 and card of the generation's file; None while that is the first model's."""

    @property
    def serving(self) -> Detector:
        """What this process serves now."""
        return self._desk.detector

    def enlist(self, watch: bool) -> None:
        """Begin as a worker: take the current generation, and from now on every later one."""
        self._generations.enlist()
        self.catch_up()
        # Two threads: whoever changes something waits until this worker has followed.
        for act in (self._follow, self._watch) if watch else (self._follow,):
            threading.Thread(target=act, name=f"swap{act.__name__}", daemon=True).start()

    def catch_up(self) -> None:
        """Serve the current generation, if this process does not yet."""
        if self._generations.number == self._number:
            return
        with self._lock:
            number, generation = self._generations.read()
            if generation is None or number == self._number:
                return
            detector = self._desk.detector
            content = _source(generation, self._rules.path)
            if content is None:
                model = self._first
            elif (content.sha256, content.card) == self._content:
                model = detector.model
            else:
                model = self._rules.open(content, passed=True)
            self._put(
                number, replace(detector, model=model, threshold=generation.threshold), content
            )

    def load(self, who: str) -> Change:
        """Serve the model file as it is now, in all workers; return when they do.

        A file that is served already changes nothing. The threshold stays while the file's content
        does; another file begins with the setting's.

        Raises:
            BadModel: the file is refused. What was served stays.
            Unavailable: the change cannot be written down, or a worker does not follow.
        """
        with self._generations.turn():
            self.catch_up()
            old = self._desk.detector
            try:
                file = _settled(self._rules.path)
                if file.sha256 == old.model.sha256 and _card(file) == old.model.card:
                    return Change(old, old)
                new = self._build(file, old)
            except BadModel as error:
                self._generations.count_failure(error.reason)
                logger.error(
                    "%s (asked by %s; version %s is served on)", error, who, old.model.version
                )
                raise
            self._audit.write(who, "model", old.model.sha256, new.model.sha256)
            if new.threshold != old.threshold:
                self._audit.write(who, "threshold", old.threshold, new.threshold)
                self._audit.choose(None, "", 0.0)
                self._generations.count_threshold()
                logger.warning(
                    "the threshold %s was chosen for the former model; the new one begins with %s",
                    old.threshold,
                    new.threshold,
                )
            self._generations.count_swap()
            self._publish(new, file.content, file.card)
        logger.info(
            "model %s is served in place of %s (asked by %s)",
            new.model.version,
            old.model.version,
            who,
        )
        return Change(old, new)

    def set_threshold(self, threshold: float | None, who: str) -> Change:
        """Set the threshold in all workers and return when they use it; None is the setting's.

        Raises:
            Unavailable: the change cannot be written down, or a worker does not follow.
        """
        with self._generations.turn():
            self.catch_up()
            old = self._desk.detector
            setting = self._rules.threshold
            new = replace(old, threshold=setting if threshold is None else threshold)
            if new.threshold == old.threshold:
                return Change(old, old)
            self._audit.write(who, "threshold", old.threshold, new.threshold)
            self._audit.choose(threshold, old.model.sha256, setting)
            generation = self._generations.read()[1] or Generation(old.threshold)
            self._generations.count_threshold()
            self._publish(new, generation.content, generation.card)
        logger.info(
            "the threshold is %s in place of %s (asked by %s)", new.threshold, old.threshold, who
        )
        return Change(old, new)

    def _build(self, file: ModelFile, old: Detector) -> Detector:
        """Return what would serve a file; it has scored a row."""
        model = self._rules.open(file, strict=True)
        if model.features != old.model.features:
            raise BadModel(
                f"{file.path} has the columns {_listed(model.features)}, and this service was "
                f"started with {_listed(old.model.features)}; restart it to serve another table",
                "features",
            )
        same = model.sha256 == old.model.sha256
        new = replace(old, model=model, threshold=old.threshold if same else self._rules.threshold)
        new.score(Rows(np.zeros((1, len(model.features)))))
        return new

    def _publish(self, detector: Detector, content: bytes | None, card: bytes | None) -> None:
        generation = Generation(detector.threshold, content, card)
        with self._lock:
            number = self._generations.publish(generation)
            self._put(number, detector, _source(generation, self._rules.path))
        end = time.monotonic() + _PATIENCE
        while late := self._generations.behind(number):
            if time.monotonic() > end:
                raise Unavailable(
                    f"the change is made, but {count(late, 'worker')} did not follow within "
                    f"{_PATIENCE:.0f} seconds; one that hangs is replaced by one that does"
                )
            time.sleep(POLL / 5)

    def _put(self, number: int, detector: Detector, file: ModelFile | None) -> None:
        self._desk.detector = detector
        self._content = (file.sha256, file.card) if file else None
        self._number = number
        self._generations.note(number)

    def _follow(self) -> None:
        """Keep up with the others, as a thread of a worker."""
        while True:
            time.sleep(POLL)
            _logged(self.catch_up)

    def _watch(self) -> None:
        """Look at the model file, as a thread of a worker; one of the workers does."""
        while True:
            time.sleep(LOOK)
            if self._generations.is_watching():
                _logged(self._look)

    def _look(self) -> None:
        """Load the model file if it is not the one that was looked at last."""
        mark = mark_of(self._rules.path)
        if mark != self._generations.seen:
            self._generations.seen = mark
            self.load("watch")


def mark_of(path: Path) -> int:
    """Return a number that changes with a model file or its card."""
    mark = ""
    for place in (card_path(path), path):
        with suppress(OSError):
            found = place.stat()
            mark += f"{place} {found.st_ino} {found.st_size} {found.st_mtime_ns} "
    return int.from_bytes(blake2b(mark.encode(), digest_size=7).digest()) if mark else 0


def _settled(path: Path) -> ModelFile:
    """Read a model file, and again while its card is about another one: it may be on its way."""
    end = time.monotonic() + _SETTLE
    while True:
        file = read_model_file(path)
        if file.card is None or _card(file) is not None or time.monotonic() > end:
            return file
        time.sleep(0.05)


def _card(file: ModelFile) -> Card | None:
    try:
        return file.read_card()
    except ValueError:
        return None


def _source(generation: Generation, path: Path) -> ModelFile | None:
    if generation.content is None:
        return None
    return ModelFile(path, generation.content, generation.card)


def _listed(features: tuple[str, ...]) -> str:
    shown = ", ".join(features[:5])
    return shown if len(features) <= 5 else f"{shown} and {len(features) - 5} more"


def _logged(act: Callable[[], None]) -> None:
    """Let a thread live on after a failure."""
    try:
        act()
    except BadModel:
        pass  # has been logged
    except Exception:
        logger.exception("a worker could not follow a change; it tries again")
