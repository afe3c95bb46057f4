"""The bytes of a model file and of its card. Neither the forest nor a compiler is needed here."""

import hashlib
import logging
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import BadModel
from .card import Card, card_path
from .columns import Columns
from .pickles.formats import MOST_BYTES

logger = logging.getLogger(__name__)

_MOST_CARD_BYTES = 32 * 2**20  # the card of 4,096 columns takes 9 MB

REMEDY = "put back a sound file, or make one with `python -m training.train`"


@dataclass(frozen=True)
class ModelFile:
    """A model file and its card, each read once."""

    path: Path
    content: bytes
    card: bytes | None
    """None if there is no card, or it cannot be read."""

    @cached_property
    def sha256(self) -> str:
        """The digest of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def version(self) -> str:
        """The model's version."""
        return version_of(self.sha256)

    def read_card(self) -> Card:
        """Return the card; ValueError when it is missing, damaged or about other bytes."""
        path = card_path(self.path)
        if self.card is None:
            raise ValueError(f"{path} cannot be read")
        try:
            card = Card.from_json(self.card.decode())
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error})") from error
        if card.files.get(self.path.name) != self.sha256:
            raise ValueError(f"{path} describes another file than {self.path}")
        return card


def version_of(sha256: str) -> str:
    """Return a model's version: the first 12 digits of the SHA-256 of its file."""
    return sha256[:12]


def read_model_file(path: Path) -> ModelFile:
    """Read a model file and its card.

    Raises:
        BadModel: there is no such file, or it is too large.
    """
    try:
        content = _read(path, MOST_BYTES)
    except OSError as error:
        raise BadModel(
            f"{path} cannot be read ({error.strerror}); make a model with "
            "`python -m training.train`, or name yours in ISOSERVE_MODEL",
            "file",
        ) from error
    try:
        card = _read(card_path(path), _MOST_CARD_BYTES)
    except OSError:
        card = None
    return ModelFile(path, content, card)


def find_card(file: ModelFile, require_card: bool = False) -> tuple[Card | None, str]:
    """Return the card, or None and why it cannot be used, which is logged as a warning.

    BadModel in place of that, with `require_card`.
    """
    try:
        card = file.read_card()
        Columns.from_card(card)
    except ValueError as error:
        if require_card:
            raise BadModel(
                f"{error}; {file.path} needs the card that was written with it, because "
                "ISOSERVE_REQUIRE_CARD is set or there is another card beside it",
                "card",
            ) from error
        logger.warning(
            "%s; the model is served without a card (`python -m training.describe` writes one)",
            error,
        )
        return None, str(error)
    return card, ""


def _read(path: Path, most: int) -> bytes:
    # Not blocking: to open a pipe would wait until somebody writes into it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(None, "it is not a file")
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(None, f"it is larger than {most:,} bytes")
    return content
