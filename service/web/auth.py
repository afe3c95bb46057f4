"""Who may ask: API keys and tokens, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any


class ApiKey:
    """What opens every route but health: the header X-API-ApiKey, or Authorization: Bearer."""

    def __init__(self, *accepted: str) -> None:
        """Accept any of these keys."""
        self._accepted = [_digest(key) for key in accepted]

    def fits(self, environ: Mapping[str, Any]) -> bool:
        """Return whether a request has one of the keys; how long this takes tells nothing."""
        sent = environ.get("HTTP_X_API_KEY") or _bearer(environ.get("HTTP_AUTHORIZATION", ""))
        digest, fits = _digest(sent), False
        for known in self._accepted:
            fits |= hmac.compare_digest(digest, known)
        return fits


def _bearer(header: str) -> str:
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _digest(text: str) -> bytes:
    """Return what is compared: of one length, whatever was sent."""
    return sha256(text.encode()).digest()
