"""A client of a running service, for notebooks.

service = Client()
service.score([[0.1, 0.2]], ["mean", "sd"])
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import pandas as pd
from prometheus_client.parser import text_string_to_metric_families

DEFAULT_URL = "http://127.0.0.1:8000"  # of `make serve`; Docker Compose sets ISOSERVE_URL
_SECONDS = 30

# The service is on the same machine or network: never ask it through a proxy.
_opener = build_opener(ProxyHandler({}))


class Client:
    """A client of one service: at `url`, else at ISOSERVE_URL, else the one of `make serve`.

    It sends the API key in ISOSERVE_API_KEY, or in the file ISOSERVE_API_KEY_FILE, if there is one.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = (url or os.environ.get("ISOSERVE_URL") or DEFAULT_URL).rstrip("/")
        key = _read_key()
        self._headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})

    def get(self, path: str) -> str:
        """Return the text of a page; ValueError with the service's sentence if it is refused."""
        status, text = self._ask(path)
        if status != 200:
            raise ValueError(f"{self.url}{path} answers {status}: {text.strip()}{_hint(status)}")
        return text

    def post(self, path: str, message: Any) -> tuple[int, dict[str, Any]]:
        """Send a message as JSON and return (HTTP status, answer), for errors too."""
        status, text = self._ask(path, json.dumps(message).encode())
        return status, json.loads(text)

    def score(self, rows: Sequence[Sequence[Any]], names: Sequence[str]) -> pd.DataFrame:
        """Return the rows with their label (1 for an outlier), score and the threshold.

        A cell is a number, a text, or None where it is missing.
        """
        table = pd.DataFrame(list(rows), columns=list(names))
        message = {"data": {"names": list(names), "ndarray": [list(row) for row in rows]}}
        status, answer = self.post("/predict?scores=1", message)
        if status != 200:
            raise ValueError(answer["status"]["info"] + _hint(status))
        tags = answer["meta"]["tags"]
        return table.assign(
            label=answer["data"]["ndarray"],
            score=tags["anomaly-scores"],
            threshold=tags["threshold"],
        )

    def metrics(self, prefix: str = "isoserve_") -> pd.DataFrame:
        """Return the metrics, one row each, without histogram buckets."""
        families = text_string_to_metric_families(self.get("/metrics"))
        samples = [sample for family in families for sample in family.samples]
        rows = [
            (sample.name, ", ".join(f"{k}={v}" for k, v in sample.labels.items()), sample.value)
            for sample in samples
            if sample.name.startswith(prefix) and not sample.name.endswith("_bucket")
        ]
        return pd.DataFrame(rows, columns=["metric", "labels", "value"])

    def _ask(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Send a GET, or a POST if there is a body."""
        request = Request(self.url + path, body, self._headers)  # noqa: S310 -- the user's own address
        try:
            with _opener.open(request, timeout=_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as refusal:
            return refusal.code, refusal.read().decode()
        except URLError as error:
            raise ConnectionError(
                f"no service at {self.url} ({error.reason}); start one with `make serve` or "
                "`docker compose up`, or set ISOSERVE_URL"
            ) from error


def _read_key() -> str:
    """Return the API key of the environment, empty if there is none."""
    file = os.environ.get("ISOSERVE_API_KEY_FILE")
    return Path(file).read_text().strip() if file else os.environ.get("ISOSERVE_API_KEY", "")


def _hint(status: int) -> str:
    """Say what to do about a missing key."""
    return "; set ISOSERVE_API_KEY to the service's key before this" if status == 401 else ""
