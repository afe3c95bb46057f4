"""The console of a real service, in a real browser and over plain HTTP."""

import contextlib
import csv
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from urllib.parse import urlencode

import pytest

from tests.stress.http import edge
from tests.support.browsing import CHROMIUM, DATA, HOSTILE, Visitor, chromium, hostile_rows, train
from tests.support.running import serving

VIEWS = ("now", "review", "threshold", "try", "drift", "model")

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: apt install chromium"
)


@pytest.fixture(scope="module")
def table():
    return hostile_rows(1500)


@pytest.fixture(scope="module")
def model(tmp_path_factory, table):
    return train(tmp_path_factory.mktemp("console"), *table)


@pytest.fixture(scope="module")
def service(tmp_path_factory, model, table):
    """A service that has scored 1,200 rows of a hostile table."""
    log = tmp_path_factory.mktemp("service") / "service.log"
    with serving(model, log, records=2_000) as service:
        names, rows = table
        for start in range(0, 1200, 300):
            send(service, names, rows[start : start + 300])
        yield service


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def send(service, names, rows):
    status, answer = service.post(
        "/invocations", {"dataframe_split": {"columns": names, "data": rows}}
    )
    assert status == 200, answer


def read(service, path):
    status, text = service.request("GET", path)
    assert status == 200, text
    return json.loads(text)


def ask(port, method, path, body=None, headers=None):
    """Return status, headers and text of one answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, fields, answer.read().decode()


def test_no_answer_of_the_console_has_a_cors_header(service):
    page = {"Origin": "https://evil.example"}
    for method, path in (
        ("GET", "/console"),
        ("GET", "//console/now"),
        ("GET", "/%63onsole/now.json"),
        ("OPTIONS", "/console/now"),
        ("PUT", "/console/now"),
        ("GET", "/console/missing"),
    ):
        _, headers, _ = ask(service.port, method, path, headers=page)
        assert not [name for name in headers if name.startswith("access-control-")], path
    assert "access-control-allow-origin" in ask(service.port, "GET", "/live", headers=page)[1]


def test_a_stranger_learns_nothing_by_a_name_that_leads_here(service):
    for path in ("/console", "/console/drift.json", "/console/static/console.js"):
        assert ask(service.port, "GET", path, headers={"Host": "evil.example"})[0] == 403


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_is_told_to_log_in(service):
    script = (
        "import encodings.idna, http.client, os, sys\n"
        "connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]))\n"
        "os.setuid(65534)\n"
        "connection.request('GET', '/console/drift.json')\n"
        "print(connection.getresponse().status)\n"
    )
    command = [sys.executable, "-c", script, str(service.port)]
    assert subprocess.check_output(command, text=True) == "403\n"
    assert read(service, "/console/drift.json")["recent_rows"] == 1200


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_the_edge_refuses_the_console_unless_it_is_switched_on(tmp_path, model):
    token = "a token of the tests"
    with serving(model, tmp_path / "service.log", admin_token=token) as service:
        with edge(tmp_path, service.port) as port:
            for path in ("/console", "//console/now", "/%63onsole/now.json", "/x/../console"):
                status, _, text = ask(port, "GET", path)
                assert (status, json.loads(text)["status"]["reason"]) == (
                    404,
                    "MICROSERVICE_BAD_DATA",
                )
            assert ask(port, "GET", "/ready")[0] == 200
        with edge(tmp_path, service.port, EDGE_CONSOLE="on") as port:
            _, _, page = ask(port, "GET", "/console/login")
            field = re.search(r'name="form_token" value="(\w+)"', page)[1]
            form = urlencode({"token": token, "form_token": field})
            home = {"Origin": f"http://127.0.0.1:{port}"}
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            elsewhere = {"Origin": f"http://127.0.0.1:{service.port}"}
            assert ask(port, "POST", "/console/login", form, kind | elsewhere)[0] == 403
            status, headers, _ = ask(port, "POST", "/console/login", form, kind | home)
            assert status == 303
            cookie = headers["set-cookie"].partition(";")[0]
            assert ask(port, "GET", "/console/now", headers={"Cookie": cookie})[0] == 200


@needs_chromium
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_sound_and_nothing_hinders_people(service, browser, view):
    visitor = Visitor(browser, service.port)
    page = visitor.go(view)
    assert page.locator("h1").count() == 1
    assert visitor.audit() == []
    page.emulate_media(color_scheme="dark")
    assert visitor.audit() == []
    page.set_viewport_size({"width": 320, "height": 640})
    assert not visitor.overflows()
    assert visitor.faults == []
    visitor.context.close()


@needs_chromium
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_printed(service, browser, view):
    visitor = Visitor(browser, service.port, color_scheme="dark")
    page = visitor.go(view)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("h1").is_visible()
    for hidden in page.locator("nav, form, footer, .tools").all():
        assert not hidden.is_visible(), "paper has no use for it"
    script = "element => getComputedStyle(element).%s"
    assert page.locator("body").evaluate(script % "backgroundColor") == "rgb(255, 255, 255)"
    for figures in page.locator(".figures dd, .card h2").all():
        assert figures.evaluate(script % "color") != "rgb(228, 231, 234)", "white on white"
    assert page.locator("body").evaluate(script % "printColorAdjust") == "exact", "legends"
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 without its margins, at 96 dpi
    assert not visitor.overflows()
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert visitor.faults == []
    visitor.context.close()


@needs_chromium
def test_names_and_cells_stay_text(service, browser):
    visitor = Visitor(browser, service.port)
    text = visitor.go("drift").locator("#columns").inner_text()
    assert HOSTILE[0] in text
    assert HOSTILE[1] in text
    assert visitor.faults == []
    visitor.context.close()


@needs_chromium
def test_everything_can_be_read_without_javascript(service, browser):
    visitor = Visitor(browser, service.port, java_script_enabled=False)
    page = visitor.go("now")
    assert page.locator("svg.sparkline").count() == 4
    page.get_by_role("link", name="Drift", exact=True).click()
    page.get_by_label("Find a column").fill("amou")
    page.get_by_role("button", name="Find").click()
    assert page.url.endswith("/console/drift?find=amou")
    assert page.locator("section.column h2").all_inner_texts()[0].startswith("amount")
    visitor.context.close()


@needs_chromium
def test_views_change_by_keys_and_typing_filters(service, browser):
    visitor = Visitor(browser, service.port)
    page = visitor.go("now")
    page.keyboard.press("5")
    page.wait_for_url("**/console/drift")
    page.keyboard.press("?")
    assert "Find a column" in page.locator("#help").inner_text()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("amount", delay=20)
    page.wait_for_url("**/drift?find=amount")
    page.locator("section.column >> nth=1").wait_for(state="detached")
    assert page.evaluate("document.activeElement.id") == "find"
    assert page.locator("#find").input_value() == "amount"
    assert visitor.faults == []
    visitor.context.close()


@needs_chromium
def test_now_follows_the_traffic_and_survives_a_restart(tmp_path, model, table, browser):
    names, rows = table
    with serving(model, tmp_path / "service.log", records=2_000) as service:
        visitor = Visitor(browser, service.port)
        page = visitor.go("now")
        assert "No row has been scored yet" in page.locator("#attention").inner_text()
        page.evaluate("document.querySelector('#main').dataset.poll = 0.2")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        send(service, names, rows[:40])
        page.get_by_text("40 in all").wait_for()
        outliers = service.scrape()["isoserve_outliers_total", ()]
        assert f"{outliers:.0f}\n" in page.locator("#figures").inner_text()
        service.kill()
        page.wait_for_selector("#notice:not([hidden])")
        assert "does not answer" in page.locator("#notice").inner_text()
        settings = {
            "port": service.port,
            "records": 2_000,
            "state_dir": service.log.with_suffix(""),
        }
        with serving(model, tmp_path / "again.log", **settings) as again:
            page.wait_for_selector("#notice", state="hidden")
            assert "40 in all" in page.locator("#figures").inner_text()
            assert again.port == service.port
        visitor.context.close()


def confusion(service):
    """Return what /metrics says of flagged rows: labelled outliers and false alarms."""
    found = {name: value for (name, _), value in service.scrape().items()}
    return int(found["true_positive"]), int(found["false_positive"])


@needs_chromium
def test_twenty_rows_are_labelled_by_keys(service, browser):
    visitor = Visitor(browser, service.port)
    page, before = visitor.go("review"), confusion(service)
    waiting = read(service, "/console/review.json")["waiting"]
    first = page.locator("#this-row + p").inner_text()
    for i in range(20):
        page.keyboard.press("n" if i % 4 == 3 else "y")
        page.locator("#main > .head strong").get_by_text(
            f"{waiting - i - 1}", exact=True
        ).wait_for()
    assert confusion(service) == (before[0] + 15, before[1] + 5)
    page.keyboard.press("u")
    page.wait_for_selector("#undo", state="detached")
    assert confusion(service) == (before[0] + 15, before[1] + 4)
    assert page.locator("#this-row + p").inner_text() != first
    assert page.locator(".alike li").count()
    assert read(service, "/console/review.json")["waiting"] == waiting - 19
    assert visitor.faults == []
    visitor.context.close()


@needs_chromium
def test_the_queue_is_walked_and_filtered_by_keys(service, browser):
    visitor = Visitor(browser, service.port)
    page, rows = visitor.go("review"), read(service, "/console/review.json")["rows"]
    page.keyboard.press("j")
    page.wait_for_url(f"**puid={rows[1]['puid']}**")
    page.keyboard.press("k")
    page.wait_for_url(f"**puid={rows[0]['puid']}**")
    page.keyboard.press("/")
    page.keyboard.type("amount>30 y")
    assert page.locator("#find").input_value() == "amount>30 y", "letters in a field are no keys"
    page.keyboard.press("Enter")
    page.wait_for_url("**find=amount**")
    text = page.locator("#main").inner_text()
    assert "matches" in text or "match the filter" in text
    visitor.context.close()


@needs_chromium
def test_a_row_is_labelled_without_javascript(service, browser):
    visitor = Visitor(browser, service.port, java_script_enabled=False)
    page, before = visitor.go("review"), confusion(service)
    page.get_by_role("button", name="Outlier").click()
    assert confusion(service) == (before[0] + 1, before[1])
    page.get_by_role("button", name="Undo").click()
    assert confusion(service) == before
    page.get_by_role("link", name="Try", exact=True).click()
    page.get_by_role("textbox", name="amount").fill("9e6")
    page.get_by_role("button", name="Score it").click()
    assert page.get_by_role("textbox", name="amount").input_value() == "9e6"
    visitor.context.close()


@needs_chromium
def test_a_typed_row_is_scored_at_once_and_kept_nowhere(service, browser):
    visitor = Visitor(browser, service.port)
    page, before = visitor.go("try"), service.scrape()
    score = page.locator("#result dd >> nth=0").inner_text()
    field = page.get_by_role("textbox", name="amount")
    field.fill("")
    field.press_sequentially("123456", delay=10)
    page.locator("#result dd").first.filter(has_not_text=score).wait_for()
    page.wait_for_url("**c*=123456**")
    assert page.evaluate("document.activeElement.name") == field.get_attribute("name")
    field.fill("12x")
    page.get_by_text("'12x' is not a number").wait_for()
    shown = page.locator("#fields").inner_text()
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in shown
    after = service.scrape()
    for name in ("isoserve_samples_total", "isoserve_outliers_total"):
        assert after[name, ()] == before[name, ()]
    assert read(service, "/console/review.json")["recorded"] == 1200
    assert visitor.faults == []
    visitor.context.close()


@needs_chromium
def test_a_threshold_is_moved_seen_and_applied_with_the_token(tmp_path, model, table, browser):
    names, rows = table
    token = "a token of the tests"
    log = tmp_path / "service.log"
    with serving(model, log, records=2_000, admin_token=token) as service:
        send(service, names, rows[:500])
        visitor = Visitor(browser, service.port)
        page = visitor.go("threshold")
        page.get_by_label("Admin token").fill(token)
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/threshold")
        page.locator("#slide").focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        page.wait_for_url("**threshold=**")
        page.locator("#exact:not([value='0.0'])").wait_for()
        chosen = page.locator("#exact").input_value()
        data = read_as(visitor, f"threshold.json?threshold={chosen}")
        assert data["chosen"]["flagged"] > data["served"]["flagged"]
        figures = page.locator("#what-if .figures").inner_text()
        assert f"{data['chosen']['flagged']}\n" in figures
        page.locator("#token").fill("wrong")
        page.get_by_role("button", name="Flag by this threshold").click()
        assert "not the admin token" in page.locator("#error").inner_text()
        visitor.go(f"threshold?threshold={chosen}").locator("#token").fill(token)
        page.get_by_role("button", name="Flag by this threshold").click()
        page.get_by_text("Done: rows that score below").wait_for()
        [served] = [v for (name, _), v in service.scrape().items() if name == "isoserve_threshold"]
        assert served == float(chosen)
        told = [one for one in visitor.faults if not one.startswith("[DOM] Password forms")]
        assert len(told) == 1
        assert "401" in told[0], "the wrong token"
        visitor.context.close()


def read_as(visitor, path):
    """Return the JSON of a view as the visitor may see it."""
    return visitor.context.request.get(f"{visitor.home}/{path}").json()


REAL = {
    "lovoo": ("lovoo/train.csv", None),
    "shuttle": ("shuttle/shuttle.csv", "label"),
}


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_every_view_shows_a_real_table(tmp_path, browser, name):
    file, label = REAL[name]
    if not (DATA / file).exists():
        pytest.skip("the data is not here")
    with (DATA / file).open() as lines:
        names, *rows = csv.reader(lines)
    kept = [i for i, column in enumerate(names) if column != label]
    rows = [[float(row[i]) for i in kept] for row in rows[:6000]]
    names = [names[i] for i in kept]
    with serving(train(tmp_path, names, rows), tmp_path / "service.log") as service:
        for start in range(0, 3000, 500):
            send(service, names, rows[start : start + 500])
        visitor = Visitor(browser, service.port)
        for view in VIEWS:
            visitor.go(view)
            assert visitor.audit() == [], view
        flagged = service.scrape()["isoserve_outliers_total", ()]
        text = visitor.go("review").locator("#main").inner_text()
        assert f"{flagged:.0f} rows wait for a label" in text
        assert f"{flagged:.0f}\n" in visitor.go("threshold").locator("#what-if").inner_text()
        assert visitor.go("try").locator("svg.boundary").count() == (len(names) == 2)
        shown = read(service, "/console/drift.json")
        assert shown["recent_rows"] == read(service, "/console/now.json")["total"]["rows"] == 3000
        assert {one["column"] for one in shown["rows"]} == set(names)
        assert visitor.faults == []
        visitor.context.close()
