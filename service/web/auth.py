"""API keys and tokens, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any


class ApiKey:
    """The key that every route but health asks for: X-API-Key, or Authorization: Bearer."""

    def __init__(self, *accepted: str) -> None:
        """Accept any of these keys."""
        self._accepted = [_digest(key) for key in accepted]

    def allows(self, environ: Mapping[str, Any]) -> bool:
        """Return whether the headers of a request hold one of the keys."""
        sent = environ.get("HTTP_X_API_KEY") or _bearer(environ.get("HTTP_AUTHORIZATION", ""))
        return self.accepts(sent)

    def accepts(self, sent: str) -> bool:
        """Return whether a text is one of the keys; the time this takes reveals nothing."""
        digest, found = _digest(sent), False
        for known in self._accepted:
            found |= hmac.compare_digest(digest, known)
        return found


def _bearer(header: str) -> str:
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _digest(text: str) -> bytes:
    """Return a digest, so that texts of any length compare in the same time."""
    return sha256(text.encode()).digest()
