"""API keys and tokens, compared in constant time."""

import hmac
from collections.abc import Mapping
from hashlib import sha256


class ApiKey:
    """The valid keys; a request sends one in X-API-Key, or in Authorization: Bearer."""

    def __init__(self, *accepted: str) -> None:
        self._accepted = [sha256(key.encode()).digest() for key in accepted]

    def allows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether the headers of a request, by name in lower case, hold one of the keys."""
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        bearer = token.strip() if kind.lower() == b"bearer" else b""
        return self.accepts(headers.get(b"x-api-key") or bearer)

    def accepts(self, sent: bytes) -> bool:
        """Return whether this is one of the keys; the time this takes reveals nothing."""
        digest = sha256(sent).digest()  # texts of any length compare in the same time
        matches = [hmac.compare_digest(digest, known) for known in self._accepted]
        return any(matches)
