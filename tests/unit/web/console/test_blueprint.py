import csv
import gzip
import io
import re
from socket import gethostname

import pytest

from service.web.console.blueprint import VIEWS

NAMES = [view.name for view in VIEWS]
PAGES = ["/console", *(f"/console/{name}" for name in NAMES)]
PATHS = [*PAGES, *(f"/console/{name}.{kind}" for name in NAMES for kind in ("html", "json", "csv"))]


def test_every_view_is_a_page_a_fragment_json_and_csv_without_any_row(console):
    for path in PATHS:
        answer = console.get(path)
        assert answer.status_code == 200, answer.text
        kind = path.rpartition(".")[2] if "." in path else "page"
        types = {"json": "application/json", "csv": "text/csv; charset=utf-8"}
        assert answer.headers["Content-Type"] == types.get(kind, "text/html; charset=utf-8")
        assert ("<nav" in answer.text) == (kind == "page")
        if kind == "csv":
            assert list(csv.reader(io.StringIO(answer.text)))


def test_no_answer_of_the_console_may_be_read_by_another_origin(console):
    for path in PATHS:
        answers = [
            console.get(path, Origin="https://evil.example"),
            console.get(f"/{path}"),  # Flask routes as if it were one slash
            console.client.options(path),
            console.client.put(path),
            console.get(f"{path}/missing"),
            console.get(path, Host="evil.example"),
        ]
        for answer in answers:
            assert not [name for name in dict(answer.headers) if name.startswith("Access-Control-")]
        policy = answers[0].headers["Content-Security-Policy"]
        assert policy == (
            "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        )
        assert answers[0].headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answers[0].headers["Cache-Control"] == "no-store"


def test_pages_have_nothing_inline_and_fetch_nothing_from_elsewhere(console):
    for path in PAGES:
        page = console.get(path).text
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|javascript:", page)
        assert not [url for url in re.findall(r'(?:src|href|action)="([^"]*)"', page)
                    if not url.startswith(("/", "#"))]  # fmt: skip


def test_the_script_is_at_most_12_kb_and_the_files_at_most_60_kb_packed(console):
    page = console.get("/console").text
    sizes = {}
    for url in re.findall(r'"(/console/static/[^"]*)"', page):
        answer = console.get(url, **{"Accept-Encoding": "gzip"})
        assert answer.headers["Cache-Control"] == "max-age=31536000, immutable"
        sizes[url] = len(answer.data)
        if "console.js" in url:
            assert len(gzip.decompress(answer.data)) <= 12_000
    assert len(sizes) == 4, "style, script, icon; and uPlot, which comes later"
    assert sum(sizes.values()) + len(gzip.compress(page.encode())) < 60_000


def test_a_file_that_the_page_does_not_have_is_not_found(console):
    for name in ("../blueprint.py", "..%2fblueprint.py", "base.html", "nothing"):
        assert console.get(f"/console/static/{name}").status_code == 404


def test_pages_and_data_are_packed_for_browsers_that_take_that(console):
    plain, packed = (
        console.get("/console/model"),
        console.get("/console/model", **{"Accept-Encoding": "gzip, br"}),
    )
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.data) < len(plain.data) / 2
    assert gzip.decompress(packed.data).startswith(b"<!doctype html>")


def test_an_unknown_view_is_told_with_those_that_there_are(console):
    answer = console.get("/console/nwo")
    assert answer.status_code == 404
    assert f"it has {', '.join(NAMES)}" in answer.text


def test_an_option_that_makes_no_sense_is_one_sentence(console):
    page, data = console.get("/console/drift?page=x"), console.get("/console/drift.json?page=x")
    assert page.status_code == data.status_code == 400
    assert data.json == {"error": "page is a whole number from 1 to 1, not 'x'"}
    assert "page is a whole number from 1 to 1" in page.text


def test_a_failure_is_logged_and_answered_briefly(console, monkeypatch):
    views = console.client.application.view_functions
    monkeypatch.setitem(views, "console.model", lambda: 1 / 0)
    answer = console.get("/console/model")
    assert answer.status_code == 500
    assert "internal error; the log has it" in answer.text
    assert "ZeroDivisionError" not in answer.text


def test_the_console_can_be_switched_off(make_client):
    client = make_client(console=False)
    assert client.get("/console").status_code == 404
    assert "console" not in client.application.blueprints


# Who may see it.


def test_a_name_that_was_made_to_lead_here_is_refused(console):
    answer = console.get("/console", Host="evil.example:8000")
    assert answer.status_code == 403
    assert "is not known by the name &#39;evil.example:8000&#39;" in answer.text


def test_without_a_token_a_service_that_others_reach_says_how_to_set_one(make_client):
    for settings in ({"host": "0.0.0.0"}, {"api_key": "k" * 16}):
        client = make_client(**settings)
        for path in PATHS:
            answer = client.get(path, headers={"Host": "127.0.0.1:8000"})
            assert answer.status_code == 403
            assert "ISOSERVE_ADMIN_TOKEN_FILE=admin.token" in answer.text


def test_with_a_token_nothing_is_shown_before_the_login(guarded):
    for path in PATHS:
        answer = guarded.get(path)
        if answer.status_code == 303:
            assert answer.headers["Location"] == f"/console/login?then={path}"
        else:
            assert answer.status_code == 401
            assert "the login has ended" in answer.text


def test_the_login_sets_a_cookie_that_no_script_and_no_other_site_can_use(guarded):
    answer = guarded.log_in(then="/console/drift?find=a")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console/drift?find=a")
    cookie = answer.headers["Set-Cookie"]
    assert re.fullmatch(
        r"isoserve_console_8000=[\w.]+; Expires=[^;]+; Max-Age=3600; HttpOnly; Path=/console; "
        r"SameSite=Strict", cookie
    )  # fmt: skip
    assert guarded.get("/console").status_code == 200
    assert guarded.post("/console/logout", page="/console").status_code == 303
    assert guarded.get("/console").status_code == 303


def test_over_https_the_cookie_is_sent_over_https_only(guarded):
    headers = {"Origin": "https://127.0.0.1:8000"}
    answer = guarded.post("/console/login", {"token": "a token of the tests"}, **headers)
    assert "; Secure; HttpOnly; Path=/console" in answer.headers["Set-Cookie"]


def test_the_login_leads_to_the_console_only(guarded):
    for then in ("https://evil.example", "//evil.example", "/docs", "/console"):
        assert guarded.log_in(then=then).headers["Location"] == "/console"


def test_a_wrong_token_is_told_and_sets_no_cookie(guarded):
    answer = guarded.log_in("another token")
    assert answer.status_code == 401
    assert "This is not the admin token." in answer.text
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Origin": "https://evil.example"}, "comes from another page"),
        ({"Origin": "null"}, "comes from another page"),
        ({"Origin": "http://127.0.0.1:9000"}, "comes from another page"),
        ({}, "this form is too old"),
    ],
)
def test_a_form_of_another_page_is_refused(guarded, headers, text):
    guarded.log_in()
    home = {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}
    answer = guarded.client.post("/console/logout", headers=home | headers)
    assert answer.status_code == 403
    assert text in answer.text
    assert guarded.get("/console").status_code == 200


def test_the_api_key_is_not_asked_for_where_there_is_a_login(make_client):
    client = make_client(api_key="k" * 16, admin_token="t" * 16)
    assert client.get("/console", headers={"Host": "127.0.0.1"}).status_code == 303
    assert client.get("/metrics").status_code == 401


def test_every_page_names_the_instance_that_it_shows_and_changes(console):
    for path in PAGES:
        assert f"the replica on {gethostname()}" in console.get(path).text
