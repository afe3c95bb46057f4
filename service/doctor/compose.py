"""Look at the files that Docker Compose gives to the service, Prometheus and Grafana.

Only where there is a docker-compose.yml: in a checkout.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from ..settings import PREFIX, unknown_variables
from .report import Report

_FILE = "docker-compose.yml"

# What is mounted into containers whose users are others than this one.
_MOUNTED = ("models", "data", "monitoring")

# Each file, and what must be in it: whoever reads it finds nothing otherwise.
_NEEDED = {
    "monitoring/prometheus.yml": ("scrape_configs:", "job_name: isoserve", "rule_files:"),
    "monitoring/rules/alerts.yml": ("groups:", "alert:"),
    "monitoring/rules/recording.yml": ("groups:", "record:"),
    "monitoring/grafana/grafana.ini": ("[",),
    "monitoring/grafana/provisioning/datasources/prometheus.yml": ("datasources:", "uid:"),
    "monitoring/grafana/provisioning/dashboards/isoserve.yml": ("providers:", "path:"),
}
_SOURCE = "monitoring/grafana/provisioning/datasources/prometheus.yml"
_DASHBOARD = "monitoring/grafana/dashboards/isoserve.json"

_PORTS = {"ISOSERVE_PORT": "8000", "PROMETHEUS_PORT": "9090", "GRAFANA_PORT": "3000"}

_USER = 10001
"""The user of the service in its image."""


def look_at_compose(report: Report, checkout: Path) -> None:
    """Look at .env and at the files of Prometheus and Grafana."""
    if not (checkout / _FILE).exists():
        report.add("ok", "compose", f"no {_FILE} here: Prometheus and Grafana are not looked at")
        return
    before = len(report.findings)
    for sentence in (*_env_faults(checkout), *_provisioning_faults(checkout)):
        report.add("fault", "compose", sentence)
    if len(report.findings) == before:
        report.add("ok", "compose", ".env and the files of Prometheus and Grafana can be used")


def _env_faults(checkout: Path) -> Iterator[str]:
    try:
        variables = dict(_read_env((checkout / ".env").read_text()))
    except FileNotFoundError:
        return
    yield from (f".env: {sentence}" for sentence in unknown_variables(variables))
    for name in variables:
        if name.startswith(PREFIX) and name.endswith("_FILE"):
            yield f".env: {name} names a file that is not in the container: give the key itself"
    ports = {name: variables.get(name, usual) for name, usual in _PORTS.items()}
    for name, other in combinations(ports, 2):
        if ports[name] == ports[other]:
            yield f".env: {name} and {other} are both {ports[name]}: choose another port"
    state = variables.get("ISOSERVE_STATE_DIR", "")
    if "/" in state and (folder := checkout / state).exists() and folder.stat().st_uid != _USER:
        yield f".env: {state} belongs to user {folder.stat().st_uid}: chown -R {_USER} {state}"


def _read_env(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, sign, value = line.partition("=")
        if sign and not name.lstrip().startswith("#"):
            yield name.removeprefix("export ").strip(), value.strip().strip("\"'")


def _provisioning_faults(checkout: Path) -> Iterator[str]:
    for name in _MOUNTED:
        for path in _unreadable(checkout / name):
            where = path.relative_to(checkout)
            yield f"{where} cannot be read by all users: chmod -R a+rX {name}"
            break
    for name, needed in _NEEDED.items():
        if not (checkout / name).is_file():
            yield f"{name} is missing: take it from the repository"
            continue
        text = (checkout / name).read_text(errors="replace")
        if missing := [part for part in needed if part not in text]:
            yield f"{name} has no {missing[0]!r}: take it from the repository"
    yield from _dashboard_faults(checkout)


def _unreadable(folder: Path) -> Iterator[Path]:
    for path in (folder, *sorted(folder.rglob("*"))) if folder.exists() else ():
        wanted = 0o5 if path.is_dir() else 0o4
        if path.exists() and path.stat().st_mode & wanted != wanted:
            yield path


def _dashboard_faults(checkout: Path) -> Iterator[str]:
    """Yield what keeps Grafana from showing the dashboard."""
    try:
        dashboard = json.loads((checkout / _DASHBOARD).read_text())
        source = (checkout / _SOURCE).read_text()
    except FileNotFoundError:
        if not (checkout / _DASHBOARD).exists():
            yield f"{_DASHBOARD} is missing: take it from the repository"
        return
    except ValueError as error:
        yield f"{_DASHBOARD} is not JSON ({error}): take it from the repository"
        return
    known = set(re.findall(r"^\s*uid:\s*(\S+)", source, re.MULTILINE))
    used = set(_uids(dashboard))
    if unknown := sorted(used - known - {"-- Grafana --"}):
        yield f"{_DASHBOARD} reads the data source {unknown[0]!r}, which {_SOURCE} does not have"


def _uids(value: object) -> Iterator[str]:
    """Yield the uid of each data source that a dashboard names."""
    if isinstance(value, Mapping):
        source = value.get("datasource")
        uid = source.get("uid") if isinstance(source, Mapping) else None
        if isinstance(uid, str) and not uid.startswith("$"):  # a variable of the dashboard
            yield uid
        for one in value.values():
            yield from _uids(one)
    elif isinstance(value, list):
        for one in value:
            yield from _uids(one)
