"""Ask Prometheus what every panel of the dashboard would show, and name those that are empty.

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

# What Grafana puts in: here all jobs, and the shortest interval that has data at any rate.
_VARIABLES = {"$__rate_interval": "1m", "$job": ".*"}

_opener = build_opener(ProxyHandler({}))


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that show data, as they stand in its file."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield (panel's title, query) with Grafana's variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], fill_in(target["expr"])


def fill_in(expression: str) -> str:
    """Put values for Grafana's variables.

    >>> fill_in('up{job=~"$job"}')
    'up{job=~".*"}'
    """
    return re.sub(r"\$\w+", lambda found: _VARIABLES[found[0]], expression)


def ask(url: str, query: str) -> list[tuple[dict[str, str], float]]:
    """Return (labels, value) of each series that a query gives now.

    Raises:
        ConnectionError: no Prometheus answers at `url`, or one that has only begun.
        ValueError: it does not take the query.
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
    """Return the title and query of whatever would show nothing now."""
    return [
        f"{title}: {query}"
        for title, query in queries()
        if not any(math.isfinite(value) for _, value in ask(url, query))
    ]


def wait_for_panels(url: str, seconds: float) -> list[str]:
    """Wait until no panel is empty; return those that still are after so many seconds."""
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
    url: Annotated[str, typer.Option(help="Prometheus; else PROMETHEUS_URL, else port 9090.")] = "",
    wait: Annotated[float, typer.Option(min=0, max=3_600, help="Seconds to wait for data.")] = 0,
) -> None:
    """Tell whether every panel of the dashboard has data; the exit code is 1 if not."""
    empty = wait_for_panels(url or os.environ.get("PROMETHEUS_URL") or DEFAULT_URL, wait)
    for line in empty:
        print(f"empty: {line}", file=sys.stderr)
    if empty:
        raise typer.Exit(1)
    print(f"all {len(panels())} panels have data")


if __name__ == "__main__":
    typer.run(main)
