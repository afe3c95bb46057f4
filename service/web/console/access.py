"""Who may see the console: its host, its origin, the login and the forms.

With an admin token there is a login. Without one the console is open to the user who runs the
service, and to root, through loopback; and only if no API key is set either.
"""

import hmac
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit

from ...settings import Settings
from ..auth import ApiKey
from .peer import Address, owner

IDLE, LONGEST = 3600, 12 * 3600
"""Seconds that a login lasts after the last page, and in all."""

_RENEW = 300  # seconds of a login after which a page renews its cookie

LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))

_SESSION = re.compile(r"([0-9]{1,12})\.([0-9]{1,12})\.([0-9a-f]{32})\.([sp])\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Session:
    """A login, which the browser keeps in a cookie; all that it says is signed."""

    began: int
    """Seconds since 1970, as `renewed`."""
    renewed: int
    nonce: str
    secure: bool
    """Whether it began over HTTPS, so that the cookie is sent over HTTPS only."""

    def text(self) -> str:
        """Return what is signed."""
        return f"{self.began}.{self.renewed}.{self.nonce}.{'s' if self.secure else 'p'}"


class Access:
    """Checks requests, and makes logins and the tokens of forms."""

    def __init__(
        self, settings: Settings, token: str, clock: Callable[[], float] = time.time
    ) -> None:
        """Use the admin token `token`, empty if there is none."""
        self.has_token = bool(token)
        self._token, self._clock = ApiKey(token), clock
        # Bound to the token: with another token every login ends. The same in all workers.
        key = f"isoserve console {token}".encode() if token else secrets.token_bytes(32)
        self._key = sha256(key).digest()
        self._has_key = bool(settings.read_api_key())
        self._bound = settings.host.lower()
        self._named = frozenset(re.findall(r"[^\s,]+", settings.console_hosts.lower()))
        self.cookie = f"isoserve_console_{settings.port}"
        """Its name: browsers share cookies between the ports of a host."""

    def closed(self) -> str:
        """Return why nobody can be let in with these settings; empty if somebody can."""
        if self.has_token:
            return ""
        if self._has_key:
            return "An API key is set, and a browser cannot send one."
        if not self._is_loopback(self._bound):
            return f"The service listens on {self._bound}, where others can reach it."
        return ""

    def allows_host(self, host: str) -> bool:
        """Return whether a page may have asked for this Host, `name` or `name:port`.

        A page of a stranger can have its own name lead to this machine (DNS rebinding), so a name
        must be known. An address cannot be made to lead elsewhere.
        """
        name = _name(host)
        if not self.has_token:
            return self._is_loopback(name)
        if name in self._named or name in (self._bound, "localhost"):
            return True
        return self._is_loopback(name) or (self._is_wildcard() and _is_address(name))

    def allows_origin(self, origin: str, host: str) -> bool:
        """Return whether a form comes from a page of this console: from the same host and port."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or not parts.netloc:
            return False
        port = {"http": ":80", "https": ":443"}[parts.scheme]
        return parts.netloc.lower().removesuffix(port) == host.lower().removesuffix(port)

    def allows_user(self, client: Address | None, server: Address | None) -> bool:
        """Return whether a connection is of the user who runs the service, or of root.

        Without a login every user of this machine could read recorded rows otherwise, whose files
        only their owner may read. Without addresses there is no connection: it is this process.
        """
        if client is None or server is None:
            return True
        return owner(client, server) in (0, os.geteuid())

    def is_admin(self, sent: str) -> bool:
        """Return whether this is the admin token; the time this takes reveals nothing."""
        return self.has_token and self._token.accepts(sent.encode())

    def log_in(self, secure: bool) -> Session:
        """Return a new login."""
        now = int(self._clock())
        return Session(now, now, secrets.token_hex(16), secure)

    def seal(self, session: Session) -> str:
        """Return the value of a login's cookie."""
        return f"{session.text()}.{self._sign('session', session.text())}"

    def read(self, cookie: str) -> Session | None:
        """Return the login of a cookie; None if it is forged or has ended."""
        found = _SESSION.fullmatch(cookie)
        if not found or not self.has_token:
            return None
        began, renewed, nonce, kind, signature = found.groups()
        session = Session(int(began), int(renewed), nonce, kind == "s")
        if not hmac.compare_digest(signature, self._sign("session", session.text())):
            return None
        now = self._clock()
        alive = now < session.renewed + IDLE and now < session.began + LONGEST
        return session if alive and now >= session.began - 60 else None

    def renew(self, session: Session) -> Session | None:
        """Return the login to send back with a page; None while the old one is new enough."""
        now = int(self._clock())
        if now < session.renewed + _RENEW:
            return None
        return Session(session.began, now, session.nonce, session.secure)

    def form_token(self, session: Session | None) -> str:
        """Return the token that each form of a page carries."""
        return self._sign("form", session.nonce if session else "open")

    def allows_form(self, sent: str, session: Session | None) -> bool:
        """Return whether a form carries the token of its page."""
        return hmac.compare_digest(sent.encode(), self.form_token(session).encode())

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose} {text}".encode(), sha256).hexdigest()

    def _is_loopback(self, name: str) -> bool:
        return name in LOOPBACK or (_is_address(name) and ip_address(name).is_loopback)

    def _is_wildcard(self) -> bool:
        return _is_address(self._bound) and ip_address(self._bound).is_unspecified


def _name(host: str) -> str:
    """Return the name or address in a header Host.

    >>> _name("LocalHost:8000"), _name("[::1]:80"), _name("a:b:c")
    ('localhost', '::1', '')
    """
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:/@\s]+))(?::[0-9]{1,5})?", host.lower())
    return (found[1] or found[2]).removesuffix(".") if found else ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
