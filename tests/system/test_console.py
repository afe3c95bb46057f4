"""The console of a real service, in a real browser and over plain HTTP."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.browsing import CHROMIUM, HOSTILE, Visitor, chromium, hostile_rows, train
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


def headers_of(service, method, path, **headers):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}


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
        _, headers = headers_of(service, method, path, **page)
        assert not [name for name in headers if name.startswith("access-control-")], path
    assert "access-control-allow-origin" in headers_of(service, "GET", "/live", **page)[1]


def test_a_stranger_learns_nothing_by_a_name_that_leads_here(service):
    status, _ = headers_of(service, "GET", "/console/drift.json", Host="evil.example")
    assert status == 403


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
