"""Load another model, or set another threshold, while requests are answered.

The worker that gets the request reads the model file once, checks it (`model.file`), scores a row,
writes the checked bytes as a generation (`state.generations`), appends to the audit log and
publishes the generation. A thread in each worker sees the new number, builds the same model from
those bytes and gives the predictor a new `Detector`. A request reads `predictor.detector` once, so
one model and one threshold answer it. If anything fails, the old model stays.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..errors import BadInput, BadModel, Conflict, Unavailable, count
from ..model.card import Card, card_path
from ..model.columns import Columns
from ..model.content import ModelFile, read_model_file
from ..model.file import open_model
from ..state.audit import AuditLog
from ..state.generations import Generation, Generations
from ..threshold_choice import SCIKIT_LEARNS, ThresholdChoice
from .detector import Detector
from .predictor import Predictor

logger = logging.getLogger(__name__)

POLL = 0.1
"""Seconds between two reads of the number of the current generation."""

LOOK = 0.5
"""Seconds between two looks at the model file by the worker that watches it."""

_SETTLE = 2.0  # seconds to wait until a model file and its card match
_FOLLOW = 15.0  # seconds that all workers together have to serve a new generation


@dataclass(frozen=True)
class ModelSource:
    """The settings that name the model file and say what is required of it."""

    path: Path
    require_card: bool = False
    pinned: str = ""
    """The SHA-256 that the file must have, if any."""
    choice: ThresholdChoice = SCIKIT_LEARNS
    """The setting: a threshold, or a share of rows."""
    by_name: bool = True

    def load(
        self, file: ModelFile, strict: bool = False, choice: ThresholdChoice | None = None
    ) -> Detector:
        """Return a detector with the model of `file`, and score a row.

        It flags by the setting, or by `choice`.

        `strict`: a card that exists must belong to the file.

        Raises:
            BadModel: the file is refused, or it cannot promise the share.
        """
        require_card = self.require_card or (strict and file.card is not None)
        model = open_model(file, require_card, self.pinned)
        try:
            detector = Detector(model, by_name=self.by_name).flagging(choice or self.choice)
        except BadInput as error:
            raise BadModel(f"{file.path}: {error}", "card") from error
        detector.try_row()
        return detector


Change = tuple[Detector, Detector]
"""The detectors before and after a change; the same object if nothing changed."""


def restore_choice(detector: Detector, audit: AuditLog) -> Detector:
    """Return a detector that flags as chosen while an earlier service ran, if still valid."""
    setting = detector.choice
    chosen, invalid = audit.chosen(detector.model.sha256, setting)
    restored = detector
    if chosen is not None:
        try:
            restored = detector.flagging(chosen)
        except BadInput as error:
            invalid, chosen = str(error), None
    if invalid:
        logger.warning("the chosen threshold is no longer valid (%s): %s is used", invalid, setting)
        audit.choose(None, "", setting)
    if chosen is not None:
        logger.info("the chosen threshold %s is used instead of the setting %s", chosen, setting)
    return restored


class ModelReloader:
    """Changes the predictor's detector, in all workers."""

    def __init__(
        self, source: ModelSource, predictor: Predictor, generations: Generations, audit: AuditLog
    ) -> None:
        self._source, self._predictor = source, predictor
        self._generations, self._audit = generations, audit
        self.changes, self.history = generations.changes, audit.read
        self._first = predictor.detector
        self._lock = threading.Lock()
        self._number = 0
        self._loaded: tuple[str, bytes | None] | None = None
        """SHA-256 and card of the current model's file; None for the first model."""

    @property
    def folder(self) -> Path:
        """The folder of the model file."""
        return self._source.path.parent

    @property
    def serving(self) -> Detector:
        """What this process serves now."""
        return self._predictor.detector

    def start_worker(self, watch: bool) -> None:
        """Serve the current generation, and follow every later one in a thread."""
        self._generations.register()
        self.catch_up()
        # Two threads: a thread that changes something waits until this worker has followed.
        _repeat(self.catch_up, POLL)
        if watch:
            _repeat(self._look, LOOK)

    def catch_up(self) -> None:
        """Serve the current generation, if this process does not yet."""
        if self._generations.number == self._number:
            return
        with self._lock:
            number, generation = self._generations.read()
            if generation is None or number == self._number:
                return
            file = self._file_of(generation)
            if file is None:
                detector = self._first
            elif (file.sha256, file.card) == self._loaded:
                detector = self.serving
            else:
                detector = self._source.load(file, choice=ThresholdChoice(generation.threshold))
            self._serve(number, _as_in(generation, detector), file)

    def load(self, who: str) -> Change:
        """Load the model file in all workers; return when they all serve it.

        Nothing changes if this file is served already. A file with the same content keeps the
        threshold. A different one keeps a chosen share, else it begins with the setting.

        Raises:
            BadModel: the file is refused. The old model is still served.
            Unavailable: the change cannot be written, or a worker does not follow.
        """
        with self._generations.changing():
            self.catch_up()
            old = self.serving
            file, new = self._read_model(old, who)
            if new is old:
                return old, old
            number = self._generations.write(
                Generation(new.threshold, file.content, file.card, new.share)
            )
            chosen = None if new.choice == self._source.choice else new.choice
            self._record(who, old, new, chosen, loaded=True)
            if new.share is None and new.threshold != old.threshold:
                logger.warning(
                    "the threshold %s was chosen for the former model; the new one begins with %s",
                    old.threshold, new.threshold,
                )  # fmt: skip
            self._publish(number, new, file)
        versions = new.model.version, old.model.version
        logger.info("model %s is served in place of %s (asked by %s)", *versions, who)
        return old, new

    def set_threshold(
        self, threshold: float | None, who: str, share: float | None = None, version: str = ""
    ) -> Change:
        """Set the threshold, or a share, in all workers; return when they use it.

        None of both is the setting's. A `version` is the model's that it was chosen for.

        Raises:
            BadInput: the model cannot promise the share.
            Conflict: another version is served.
            Unavailable: the change cannot be written, or a worker does not follow.
        """
        chosen = None if threshold is share is None else ThresholdChoice(threshold, share)
        with self._generations.changing():
            self.catch_up()
            old = self.serving
            if version and version != old.model.version:
                raise Conflict(
                    f"the threshold was chosen for the model {version}, and {old.model.version} is "
                    "served: choose again"
                )
            new = old.flagging(chosen or self._source.choice)
            if (new.threshold, new.share) == (old.threshold, old.share):
                return old, old
            former = self._generations.read()[1] or Generation(old.threshold)
            generation = replace(former, threshold=new.threshold, share=new.share)
            number = self._generations.write(generation)
            self._record(who, old, new, chosen)
            self._publish(number, new, self._file_of(generation))
        thresholds = new.threshold, old.threshold
        logger.info("the threshold is %s in place of %s (asked by %s)", *thresholds, who)
        return old, new

    def _read_model(self, old: Detector, who: str) -> tuple[ModelFile, Detector]:
        """Return the model file and its detector, which is `old` if nothing has changed."""
        try:
            file = _read_settled(self._source.path)
            if file.sha256 == old.model.sha256 and _own_card(file) == old.model.card:
                return file, old
            return file, self._build(file, old)
        except BadModel as error:
            self._generations.count(error.reason)
            version = old.model.version
            logger.error("%s (asked by %s; version %s is still served)", error, who, version)
            raise

    def _build(self, file: ModelFile, old: Detector) -> Detector:
        """Return the detector for another file; it must have the same columns."""
        same_file = file.sha256 == old.model.sha256
        kept = old.choice if same_file or old.share is not None else None
        new = self._source.load(file, strict=True, choice=kept)
        if new.columns.recorded != old.columns.recorded:
            raise BadModel(
                f"{file.path} has the columns {_listed(new.columns)}, and this service was "
                f"started with {_listed(old.columns)}; restart it to serve another table",
                "features",
            )
        return new

    def _record(
        self,
        who: str,
        old: Detector,
        new: Detector,
        chosen: ThresholdChoice | None = None,
        loaded: bool = False,
    ) -> None:
        """Record a change as a whole or not at all: of the model, the threshold, or both.

        `chosen` is None if the setting applies.
        """
        changes: list[tuple[str, Any, Any]] = []
        if loaded:
            changes.append(("model", old.model.sha256, new.model.sha256))
        moved = (new.threshold, new.share) != (old.threshold, old.share)
        if moved:
            changes.append(("threshold", _told(old), _told(new)))
        with self._audit.recording(who, *changes):
            if moved:
                self._audit.choose(chosen, new.model.sha256, self._source.choice)
        for what, done in (("swap", loaded), ("threshold", moved)):
            if done:
                self._generations.count(what)

    def _publish(self, number: int, detector: Detector, file: ModelFile | None) -> None:
        """Publish a written generation and wait until all workers serve it."""
        with self._lock:
            self._generations.publish(number)
            self._serve(number, detector, file)
        end = time.monotonic() + _FOLLOW
        while behind := self._generations.count_behind(number):
            if time.monotonic() > end:
                raise Unavailable(
                    f"the change is made, but {count(behind, 'worker')} did not follow within "
                    f"{_FOLLOW:.0f} seconds; a worker that hangs is replaced by one that does"
                )
            time.sleep(POLL / 5)

    def _serve(self, number: int, detector: Detector, file: ModelFile | None) -> None:
        self._predictor.detector = detector
        self._loaded = (file.sha256, file.card) if file else None
        self._number = number
        self._generations.report(number)

    def _file_of(self, generation: Generation) -> ModelFile | None:
        if generation.content is None:
            return None
        return ModelFile(self._source.path, generation.content, generation.card)

    def _look(self) -> None:
        """Load the model file if it has changed since the last look; only one worker does."""
        if self._generations.is_watching() and self._generations.see(
            fingerprint(self._source.path)
        ):
            self.load("watch")


def _as_in(generation: Generation, detector: Detector) -> Detector:
    return replace(detector, threshold=generation.threshold, share=generation.share)


def _told(detector: Detector) -> Any:
    """Return a threshold as the audit log has it: a number, or with the share that it is for."""
    if detector.share is None:
        return detector.threshold
    return {"share": detector.share, "threshold": detector.threshold}


def fingerprint(path: Path) -> int:
    """Return a number that changes when a model file or its card changes."""
    text = ""
    for one in (card_path(path), path):
        with suppress(OSError):
            found = one.stat()
            text += f"{one} {found.st_ino} {found.st_size} {found.st_mtime_ns} "
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest()) if text else 0


def _read_settled(path: Path) -> ModelFile:
    """Read a model file; wait if its card does not match, because one may be replaced first."""
    end = time.monotonic() + _SETTLE
    while True:
        file = read_model_file(path)
        if file.card is None or _own_card(file) is not None or time.monotonic() > end:
            return file
        time.sleep(0.05)


def _own_card(file: ModelFile) -> Card | None:
    """Return the card of a model file, or None if it is missing, damaged or another file's."""
    try:
        return file.read_card()
    except ValueError:
        return None


def _listed(columns: Columns) -> str:
    names = [f"{name} (text)" if text else name for name, text in columns.recorded.items()]
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _repeat(act: Callable[[], None], seconds: float) -> None:
    """Call `act` in a thread at this interval; a failure does not end it."""

    def run() -> None:
        while True:
            time.sleep(seconds)
            try:
                act()
            except BadModel:
                pass  # has been logged
            except Exception:
                logger.exception("a worker could not follow a change; it tries again")

    threading.Thread(target=run, name=f"reload {act.__name__}", daemon=True).start()
