"""Check each request for the console before its view: host, origin, login and form."""

from http import HTTPStatus

from flask import Response, g, redirect, request, url_for
from werkzeug.wrappers import Response as WSGIResponse

from ...errors import Refusal, Unauthorized
from ..request import REQUEST
from .access import Access
from .pages import render_page


class Forbidden(Refusal):
    """A request that this host, page or form may not make."""

    status = HTTPStatus.FORBIDDEN


class Guard:
    """Decides about each request before its view."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def check(self) -> WSGIResponse | None:
        """Return the answer to a request that may not pass; None for one that may.

        Raises:
            Forbidden: it comes from another page, or to an unknown host.
            Unauthorized: it is a script's, or a form, and the login has ended.
        """
        g.access, g.session, g.allowed = self._access, None, False
        self._check_host()
        if request.endpoint == "console.static_file":
            return None
        if reason := self._access.closed():
            return render_page("closed.html", HTTPStatus.FORBIDDEN, reason=reason)
        refused = self._check_login() if self._access.has_token else self._check_user()
        if refused:
            return refused
        self._check_form()
        g.allowed = request.endpoint != "console.log_in"
        return None

    def _check_host(self) -> None:
        host = request.headers.get("Host", "")
        if not self._access.allows_host(host):
            raise Forbidden(
                f"the console is not known by the name {host[:100]!r}; name it in "
                "ISOSERVE_CONSOLE_HOSTS if it is one of yours, or use the address of the service"
            )
        origin = request.headers.get("Origin", "")
        if request.method == "POST" and not self._access.allows_origin(origin, host):
            raise Forbidden("this form comes from another page than the console's own")

    def _check_login(self) -> WSGIResponse | None:
        g.session = self._access.read(request.cookies.get(self._access.cookie, ""))
        if g.session or request.endpoint == "console.log_in":
            return None
        if request.method == "POST" or request.path.endswith((".json", ".csv", ".html")):
            raise Unauthorized("the login has ended; load the page again and log in")
        here = request.full_path.rstrip("?")
        return redirect(url_for("console.log_in", then=here), HTTPStatus.SEE_OTHER)

    def _check_user(self) -> Response | None:
        server = request.environ.get("asgi.scope", {}).get("server")
        if self._access.allows_user(request.environ[REQUEST].client, server):
            return None
        reason = "Another user of this machine runs the service."
        return render_page("closed.html", HTTPStatus.FORBIDDEN, reason=reason)

    def _check_form(self) -> None:
        sent = request.form.get("form_token", "")
        if request.method == "POST" and not self._access.allows_form(sent, g.session):
            raise Forbidden("this form is too old; load the page again, and send it once more")
