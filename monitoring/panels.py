"""Run the queries of all panels of the dashboard in Prometheus, and report those without data.

python -m monitoring.panels --wait 60
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import typer

DASHBOARD = Path(__file__).parent / "grafana/dashboards/isoserve.json"
DEFAULT_URL = "http://127.0.0.1:9090"

# Values for Grafana's variables: all jobs, and the shortest interval that always has data.
_VARIABLES = {"$__rate_interval": "1m", "$job": ".*"}

_opener = build_opener(ProxyHandler({}))


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that show data, as in its file."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield (title of the panel, query) with values for Grafana's variables."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], fill_in(target["expr"])


def fill_in(expression: str) -> str:
    """Replace Grafana's variables by values.

    >>> fill_in('up{job=~"$job"}')
    'up{job=~".*"}'
    """
    return re.sub(r"\$\w+", lambda found: _VARIABLES[found[0]], expression)


def ask(url: str, query: str) -> list[tuple[dict[str, str], float]]:
    """Return (labels, value) of each series that a query gives now.

    Raises:
        ConnectionError: Prometheus does not answer at `url`, or is still starting.
        ValueError: Prometheus rejects the query.
    """
    try:
        with _opener.open(f"{url}/api/v1/query?{urlencode({'query': query})}", timeout=10) as page:
            result = json.load(page)["data"]["result"]
    except HTTPError as refusal:
        if refusal.code == HTTPStatus.SERVICE_UNAVAILABLE:
            raise ConnectionError(f"the Prometheus at {url} is not ready yet") from refusal
        raise ValueError(f"{query}: {refusal.read().decode()}") from refusal
    except URLError as error:
        raise ConnectionError(f"no Prometheus at {url} ({error.reason})") from error
    return [(series["metric"], float(series["value"][1])) for series in result]


def empty_panels(url: str) -> list[str]:
    """Return the title and query of each graph without data."""
    return [
        f"{title}: {query}"
        for title, query in queries()
        if not any(math.isfinite(value) for _, value in ask(url, query))
    ]


def wait_for_panels(url: str, seconds: float) -> list[str]:
    """Wait until all panels have data; return those that have none after some seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            empty = empty_panels(url)
        except ConnectionError as error:
            empty = [str(error)]
        if not empty or time.monotonic() > end:
            return empty
        time.sleep(1)


def main(
    url: Annotated[str, typer.Option(help="URL; else PROMETHEUS_URL, else port 9090.")] = "",
    wait: Annotated[float, typer.Option(min=0, max=3_600, help="Seconds to wait for data.")] = 0,
) -> None:
    """Check that every panel of the dashboard has data; exit with 1 if not."""
    empty = wait_for_panels(url or os.environ.get("PROMETHEUS_URL") or DEFAULT_URL, wait)
    for line in empty:
        print(f"empty: {line}", file=sys.stderr)
    if empty:
        raise typer.Exit(1)
    print(f"all {len(panels())} panels have data")


if __name__ == "__main__":
    typer.run(main)
