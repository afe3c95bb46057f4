"""The routes of the console: each view as a page, a fragment, JSON and CSV; and the login."""

from functools import partial
from http import HTTPStatus

import structlog
from flask import Blueprint, Response, g, redirect, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WSGIResponse

from ...errors import BadModel, NotFound, Refusal
from ...protocols.codec import JSON, render_json
from . import drift, formats, model, now, review, threshold, trial
from .access import IDLE, Session
from .guard import Guard
from .pages import CSV, pack, render_page, send_file
from .view import Console, Data, View, encode_csv

VIEWS = (now.VIEW, review.VIEW, threshold.VIEW, trial.VIEW, drift.VIEW, model.VIEW)

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

log = structlog.get_logger("isoserve")


def create_console(console: Console) -> Blueprint:
    """Return the routes of the console, `/console` and all below it."""
    routes = Blueprint("console", __name__, url_prefix="/console", template_folder="templates")
    routes.before_request(Guard(console.access).check)
    routes.after_request(_protect)
    routes.context_processor(lambda: {"views": VIEWS})
    routes.register_error_handler(Exception, _show_error)
    for name in ("number", "cells", "rate", "share", "seconds", "when", "span", "ago"):
        routes.add_app_template_filter(getattr(formats, name), name)
    _add_login(routes, console)
    for view in VIEWS:
        _add_view(routes, console, view)
    routes.add_url_rule("", "start", partial(_show_page, console, VIEWS[0]), strict_slashes=False)
    routes.add_url_rule("/static/<name>", "static_file", send_file)
    routes.add_url_rule("/<path:path>", "missing", _missing)
    return routes


def _missing(path: str) -> Response:
    names = ", ".join(view.name for view in VIEWS)
    raise NotFound(f"the console has no view {path[:100]!r}; it has {names}")


def _add_login(routes: Blueprint, console: Console) -> None:
    access = console.access

    @routes.route("/login", methods=["GET", "POST"])
    def log_in() -> Response | WSGIResponse:
        then = request.values.get("then", "")
        if request.method == "GET":
            return render_page("login.html", then=then)
        if not access.is_admin(request.form.get("token", "").strip()):
            fault = "This is not the admin token."
            return render_page("login.html", HTTPStatus.UNAUTHORIZED, then=then, fault=fault)
        safe = then if then.startswith("/console/") else url_for("console.start")
        g.session = access.log_in(request.headers["Origin"].startswith("https:"))
        return _with_cookie(redirect(safe, HTTPStatus.SEE_OTHER), g.session)

    @routes.post("/logout")
    def log_out() -> WSGIResponse:
        response = redirect(url_for("console.log_in"), HTTPStatus.SEE_OTHER)
        response.delete_cookie(access.cookie, path="/console", httponly=True, samesite="Strict")
        return response


def _add_view(routes: Blueprint, console: Console, view: View) -> None:
    """Add the URLs of a view: the page, the fragment that the script fetches, JSON and CSV."""
    for kind, show in (("", _show_page), (".html", _show_page), (".json", _json), (".csv", _csv)):
        show_view = partial(show, console, view)
        routes.add_url_rule(
            f"/{view.name}{kind}", f"{view.name}{kind.replace('.', '_')}", show_view
        )
    act = view.act
    if act is None:
        return

    def post() -> WSGIResponse:
        query = act(console, request.form.to_dict())
        where = url_for(f"console.{view.name}") + (f"?{query}" if query else "")
        return redirect(where, HTTPStatus.SEE_OTHER)

    routes.add_url_rule(f"/{view.name}", f"{view.name}_act", post, methods=["POST"])


def _show_page(console: Console, view: View) -> WSGIResponse | Response:
    query = request.args.to_dict()
    data = view.read(console, query)
    is_part = request.path.endswith(".html")
    layout = "fragment.html" if is_part else "base.html"
    shown = {"layout": layout, "view": view, "data": data, "query": query, **view.helpers}
    response = render_page(f"{view.name}.html", **shown)
    renewed = console.access.renew(g.session) if g.session and not is_part else None
    return _with_cookie(response, renewed) if renewed else response


def _json(console: Console, view: View) -> Response:
    data = view.read(console, request.args.to_dict())
    return pack(Response(render_json(data, in_order=True)), JSON)


def _csv(console: Console, view: View) -> Response:
    rows: list[Data] = view.read(console, request.args.to_dict())[view.table]
    response = pack(Response(encode_csv(rows)), CSV)
    response.headers["Content-Disposition"] = f'attachment; filename="isoserve-{view.name}.csv"'
    return response


def _with_cookie(response: WSGIResponse, session: Session) -> WSGIResponse:
    response.set_cookie(
        g.access.cookie,
        g.access.seal(session),
        max_age=IDLE,
        path="/console",
        secure=session.secure,
        httponly=True,
        samesite="Strict",
    )
    return response


def _protect(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    # Not no-referrer: with that, forms would come with the Origin "null".
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def _show_error(error: Exception) -> Response:
    """Return a failure as a page, or as JSON where that was asked for."""
    status, text = HTTPStatus.INTERNAL_SERVER_ERROR.value, "internal error; the log has it"
    if isinstance(error, BadModel):
        status, text = HTTPStatus.CONFLICT.value, str(error)
    elif isinstance(error, Refusal):
        status, text = error.status, str(error)
    elif isinstance(error, HTTPException):
        status, text = error.code or status, error.description or error.name
    else:
        log.error("console failed", path=request.path, exc_info=error)
    if request.path.endswith((".json", ".csv")):
        return pack(Response(render_json({"error": text}), status), JSON)
    layout = "fragment.html" if request.path.endswith(".html") else "base.html"
    return render_page("error.html", status, text=text, layout=layout, back=_find_view())


def _find_view() -> str:
    """Return the URL of the view that was asked for, without its query; else the first view's."""
    name = (request.endpoint or "").removeprefix("console.").removesuffix("_act")
    known = name if name in {view.name for view in VIEWS} else "start"
    return url_for(f"console.{known}")
