"""Check the dashboard, the rules and the load with the service and a real Prometheus."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from monitoring.load import Load, Mix
from monitoring.panels import DASHBOARD, ask, panels, queries, wait_for_panels
from service.telemetry.metrics import METRICS
from tests.support.cards import number
from tests.support.prometheus import Prometheus
from tests.support.running import Service, expect_no_traceback
from training.client import Client
from training.train import main as train

ROOT = Path(__file__).parents[2]
BOARD = json.loads(DASHBOARD.read_text())
RULES = [
    rule
    for path in sorted((ROOT / "monitoring/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"] for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
RULE_TESTS = sorted((ROOT / "monitoring").glob("rules*_test.yml"))
CASES = [case for path in RULE_TESTS for case in yaml.safe_load(path.read_text())["tests"]]
PAGES = [ROOT / "docs/operate/runbook.md", ROOT / "docs/operate/monitoring.md"]

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus is not installed (Debian's package of that name has promtool, too)",
)


def names(expression):
    """Return the names of the metrics in a PromQL expression."""
    found = set("|".join(re.findall(r'__name__=~"(.*?)"', expression)).split("|")) - {""}
    rest = re.sub(r"\{.*?\}|\[.*?\]|\b(by|without|on) \(.*?\)", " ", expression, flags=re.DOTALL)
    words = re.findall(r"(?<![\w.:])[a-zA-Z_][\w:]*(?!\w*\s*\()", rest)
    return found | set(words) - {"and", "or", "unless", "offset", "d", "m"}


def exposed(name):
    """Tell whether the service or Prometheus exposes a metric."""
    base = re.sub(r"_(bucket|count|sum)$", "", name)
    histogram = METRICS.get(base, ("",))[0] == "histogram"
    return name in {*METRICS, *RECORDED, "up", "ALERTS"} or histogram


def test_metric_names_are_found_in_promql_expressions():
    assert names('max by (job) ({__name__=~"a|b"}) > 0.2') == {"a", "b"}
    assert names('sum(rate(x_total{a="y"}[5m])) / (z > 1e9) and job:r:x offset 30m') == {
        "x_total",
        "z",
        "job:r:x",
    }


def test_every_metric_in_a_query_exists():
    asked = [query for _, query in queries()]
    asked += [annotation["expr"] for annotation in BOARD["annotations"]["list"]]
    asked += [rule["expr"] for rule in RULES]
    assert {name for query in asked for name in names(query) if not exposed(name)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_and_alert_named_in_the_documentation_exists(page):
    text = page.read_text()
    assert {n for n in re.findall(r"\bisoserve_\w+", text) if not exposed(n)} == set()
    assert set(re.findall(r"\bIsoserve[A-Z]\w+", text)) <= ALERTS


def test_every_panel_has_a_description_and_a_unit():
    for panel in panels():
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
    assert max(Counter(panel["id"] for panel in BOARD["panels"]).values()) == 1
    assert max(Counter(panel["title"] for panel in panels()).values()) == 1


def test_panels_do_not_overlap():
    places = Counter(
        (x, y)
        for at in (panel["gridPos"] for panel in BOARD["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    )
    assert max(places.values()) == 1
    assert max(x for x, _ in places) == 23


def test_the_dashboard_has_a_fixed_uid_and_data_source():
    folder = ROOT / "monitoring/grafana/provisioning"
    source, *others = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    chosen = {variable["name"]: variable["current"] for variable in BOARD["templating"]["list"]}
    assert (BOARD["uid"], others) == ("isoserve", [])
    assert chosen["datasource"]["value"] == source["uid"]
    parts = [*BOARD["panels"], *BOARD["annotations"]["list"]]
    sources = {part["datasource"]["uid"] for part in parts if "datasource" in part}
    assert sources == {"${datasource}"}


def test_quality_gauges_are_never_summed():
    gauges = {name for name, (kind, _) in METRICS.items() if kind == "gauge"}
    counts = {"true_negative", "false_positive", "false_negative", "true_positive", "nb_labels_tot"}
    for query in [query for _, query in queries()] + [rule["expr"] for rule in RULES]:
        for summed in re.findall(r"\b(?:sum|avg)\b[^(]*\((\w+)", query):
            assert summed not in gauges - counts, query


def test_every_alert_has_a_summary_and_a_runbook_link():
    headings = re.findall(r"^## (\w+)$", PAGES[0].read_text(), re.MULTILINE)
    assert set(headings) == ALERTS
    for rule in RULES:
        if "alert" in rule:
            anchor = f"docs/operate/runbook.md#{rule['alert'].lower()}"
            assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
            assert rule["annotations"]["runbook_url"] == anchor
            assert rule["labels"]["severity"] in ("warning", "critical")


def test_every_alert_has_a_test_case_that_fires_and_one_that_does_not():
    firing, quiet, recorded = set(), set(), set()
    for case in CASES:
        first, *others = case["promql_expr_test"]
        labels = [sample["labels"] for sample in first["exp_samples"]]
        if labels:
            firing |= set(re.findall(r'alertname="(\w+)"', labels[0]))
            assert case["name"].split(": ")[1].startswith(tuple(firing))
        else:
            assert "count_over_time" in first["expr"]  # at any time, not only at the end
            quiet |= set(re.findall(r": not (\w+)", case["name"]))
        recorded |= {name for other in others for name in names(other["expr"])}
    assert firing == quiet == ALERTS
    assert recorded == RECORDED


@needs_prometheus
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] * ("_day_" in path.name))
        for path in RULE_TESTS
    ],
)
def test_promtool_passes_the_test_cases_of_the_rules(path):
    done = subprocess.run(
        ["promtool", "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Watched:
    """Two services under load for some seconds, and a Prometheus that scraped them."""

    def __init__(self, folder):
        assert train(["--n_estimators", "20", "--save_path", str(folder)]) == 0
        self.services = [
            Service(folder / "model.pickle", folder / f"service-{i}.log") for i in range(2)
        ]
        for service in self.services:
            service.wait_until_ready()
        self.instances = [f"127.0.0.1:{service.port}" for service in self.services]
        self.prometheus = Prometheus(folder, self.instances)
        self.loads = [
            Load(Client(f"http://{instance}"), Mix(bad=0.1), seed)
            for seed, instance in enumerate(self.instances)
        ]
        threads = [threading.Thread(target=load.run, args=(10, 30)) for load in self.loads]
        for thread in threads:
            thread.start()
        self.empty = wait_for_panels(self.prometheus.url, 60)
        for thread in threads:
            thread.join()
        self._wait_for_the_last_scrape()

    def _wait_for_the_last_scrape(self):
        sent = sum(load.sent.rows for load in self.loads)
        limit = time.monotonic() + 30
        while self.prometheus.value("sum(isoserve_samples_total)") != sent:
            assert time.monotonic() < limit
            time.sleep(0.2)
        time.sleep(2)  # until the rules are evaluated and the other service is scraped

    def stop(self):
        self.prometheus.stop()
        for service in self.services:
            service.kill()
        for service in self.services:
            expect_no_traceback(service.log)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    found = Watched(tmp_path_factory.mktemp("watched"))
    yield found
    found.stop()


@pytest.mark.parametrize("key", ["", "a key for nothing but tests"])
@needs_prometheus
def test_prometheus_scrapes_with_and_without_an_api_key(serve, folder, tmp_path, key):
    service = serve(folder / "model.pickle", api_key=key)
    prometheus = Prometheus(tmp_path, [f"127.0.0.1:{service.port}"], key)
    try:
        limit = time.monotonic() + 30
        while not prometheus.found("isoserve_workers"):
            assert time.monotonic() < limit
            time.sleep(0.1)
        assert prometheus.value("up") == 1
    finally:
        prometheus.stop()


def queries_of(title):
    return [query for panel, query in queries() if panel == title]


@pytest.mark.slow
@needs_prometheus
def test_every_panel_has_data_after_some_seconds_of_load(watched):
    assert watched.empty == []


@pytest.mark.slow
@needs_prometheus
def test_every_request_of_the_load_is_counted(watched):
    sent = [load.sent for load in watched.loads]
    ask_for = watched.prometheus.by_instance
    rows, labelled = ask_for("isoserve_samples_total"), ask_for("nb_labels_tot")
    refused = ask_for('sum by (instance) (isoserve_requests_total{status="4xx"})')
    for instance, own in zip(watched.instances, sent, strict=True):
        assert (rows[instance], labelled[instance]) == (own.rows, own.labelled)
        assert refused[instance] == own.refused > 0
        assert own.lost == 0
    assert sent[0] != sent[1]


@pytest.mark.slow
@needs_prometheus
def test_over_two_replicas_counts_are_summed_and_quality_is_not(watched):
    prometheus = watched.prometheus
    rows, outliers = (prometheus.value(query) for query in queries_of("Rows so far"))
    assert rows == sum(load.sent.rows for load in watched.loads)
    assert outliers == sum(prometheus.by_instance("isoserve_outliers_total").values())

    hits, misses, alarms = (
        sum(prometheus.by_instance(name).values())
        for name in ("true_positive", "false_negative", "false_positive")
    )
    precision, recall = (prometheus.value(q) for q in queries_of("Precision and recall so far"))
    assert precision == pytest.approx(hits / (hits + alarms))
    assert recall == pytest.approx(hits / (hits + misses))

    for title in ("Precision and recall of late", "Threshold", "Workers", "Storage"):
        for query in queries_of(title):
            assert set(prometheus.by_instance(query)) == set(watched.instances)
    assert prometheus.value(queries_of("Replicas up")[0]) == 2
    assert prometheus.value(queries_of("Model version")[0]) == 2


@pytest.mark.slow
@needs_prometheus
def test_every_rule_is_evaluated_and_a_healthy_service_raises_no_alert(watched):
    page = Client(watched.prometheus.url).get("/api/v1/rules")
    rules = [rule for group in json.loads(page)["data"]["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert {rule["health"] for rule in rules} == {"ok"}
    assert ask(watched.prometheus.url, 'ALERTS{alertstate="firing"}') == []
    assert watched.prometheus.value("job:isoserve_drift_psi:max") < 0.25


def test_the_load_script_reports_a_missing_service():
    done = subprocess.run(
        [sys.executable, "-m", "monitoring.load", "--url", "http://127.0.0.1:1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no service at http://127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_load_script_reports_a_model_with_other_columns(serve, folder, write_card):
    write_card(columns=[number(name) for name in ("a", "b")])
    with pytest.raises(ValueError, match="does not take the sample's rows"):
        Load(Client(f"http://127.0.0.1:{serve(folder / 'model.pickle').port}")).run(1, 1)


def test_a_prometheus_that_is_starting_counts_as_not_ready():
    class Beginner(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Beginner) as server:
        threading.Thread(target=server.handle_request).start()
        with pytest.raises(ConnectionError, match="not ready yet"):
            ask(f"http://127.0.0.1:{server.server_port}", "up")


def test_a_missing_prometheus_is_reported(capsys):
    assert wait_for_panels("http://127.0.0.1:1", 0)[0].startswith("no Prometheus at")
