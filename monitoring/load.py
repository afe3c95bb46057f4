"""Replay the sample table against a running service, as `make demo` does.

    python -m monitoring.load --seconds 60   # --url, else ISOSERVE_URL, else port 8000

The sample model was not trained on these rows; a few per cent of them are planted outliers. Some
requests are invalid, and half of the predictions get feedback with the truth.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer

from training.client import Client
from training.datasets import held_out_spending


def _truth(truths: list[int]) -> dict[str, Any]:
    return {"data": {"ndarray": truths}}


# How many rows a request has: mostly one, sometimes a batch.
_SIZES = (1, 1, 1, 2, 5, 20, 50)

# (path, message) that the service answers with 4xx: text instead of a number, too many columns, no
# data, a wrong path, and the truth about an unknown prediction.
_BAD: tuple[tuple[str, Any], ...] = (
    ("/predict", {"data": {"ndarray": [[0.1, "much"]]}}),
    ("/predict", {"data": {"ndarray": [[0.1] * 99]}}),
    ("/predict", {}),
    ("/predictions", {"data": {"ndarray": [[0.1, 0.2]]}}),
    ("/send-feedback", {"response": {"meta": {"puid": "nobody"}}, "truth": _truth([1])}),
)


@dataclass(frozen=True)
class Mix:
    """The shares (0 to 1) of outliers, invalid requests and feedback."""

    odd: float = 0.03
    """Share of the rows that are planted outliers."""
    bad: float = 0.02
    """Share of the requests that are invalid."""
    feedback: float = 0.5
    """Share of the predictions that get feedback with the truth."""


@dataclass
class Sent:
    """Counts of what was sent."""

    requests: int = 0
    rows: int = 0
    labelled: int = 0
    """Rows whose truth was sent."""
    refused: int = 0
    lost: int = 0
    """Requests without an answer, for instance while the service restarts."""


class Load:
    """A generator of requests to one service; the same seed gives the same requests."""

    def __init__(self, client: Client, mix: Mix | None = None, seed: int = 16) -> None:
        self.client, self.mix, self.sent = client, mix or Mix(), Sent()
        self._chance = np.random.default_rng(seed)
        table = held_out_spending()
        self._names = list(table.features)
        self._kinds = [table.X[table.labels == truth] for truth in (0, 1)]

    def run(self, seconds: float, rate: float) -> None:
        """Send about `rate` requests per second, one after another, for some seconds.

        Raises:
            ConnectionError: there is no service.
            ValueError: its model does not take the rows of the sample table.
        """
        self.predict()
        end = due = time.monotonic()
        end += seconds
        while (due := due + self._chance.exponential(1 / rate)) < end:
            time.sleep(max(due - time.monotonic(), 0))
            try:
                self.step()
            except ConnectionError:
                self.sent.lost += 1
                time.sleep(0.5)

    def step(self) -> None:
        """Send one invalid request, or a prediction request with or without feedback."""
        if self._chance.random() < self.mix.bad:
            path, message = _BAD[self._chance.integers(len(_BAD))]
            self._post(path, message)
        else:
            self.predict()

    def predict(self) -> None:
        """Send some rows, and perhaps the truth about them."""
        truths = (self._chance.random(self._chance.choice(_SIZES)) < self.mix.odd).astype(int)
        rows = [self._chance.choice(self._kinds[truth]).tolist() for truth in truths]
        path = "/predict" if self._chance.random() < 0.8 else "/transform-input"
        status, answer = self._post(path, {"data": {"names": self._names, "ndarray": rows}})
        if status == 400:
            raise ValueError(f"the service does not take the sample's rows: {_reason(answer)}")
        if status == 200:
            self.sent.rows += len(rows)
            if self._chance.random() < self.mix.feedback:
                self._send_truth(answer["meta"]["puid"], truths.tolist())

    def _send_truth(self, puid: str, truths: list[int]) -> None:
        message = {"response": {"meta": {"puid": puid}}, "truth": _truth(truths)}
        status, _ = self._post("/send-feedback", message)
        if status == 200:
            self.sent.labelled += len(truths)

    def _post(self, path: str, message: Any) -> tuple[int, dict[str, Any]]:
        status, answer = self.client.post(path, message)
        self.sent.requests += 1
        self.sent.refused += status >= 400
        return status, answer


def _reason(answer: dict[str, Any]) -> str:
    return str(answer["status"]["info"])


def main(
    url: Annotated[
        str, typer.Option(help="URL of the service; else ISOSERVE_URL, else port 8000.")
    ] = "",
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="Duration.")] = 600,
    rate: Annotated[float, typer.Option(min=0.1, max=1_000, help="Requests per second.")] = 20,
    odd: Annotated[float, typer.Option(min=0, max=1, help="Share of planted outliers.")] = Mix.odd,
    bad: Annotated[float, typer.Option(min=0, max=1, help="Share of invalid requests.")] = Mix.bad,
) -> None:
    """Replay the sample table, with planted outliers, against a service with the sample model."""
    load = Load(Client(url or None), Mix(odd, bad))
    try:
        load.run(seconds, rate)
    except (ConnectionError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        pass
    sent = load.sent
    print(
        f"sent {sent.requests:,} requests with {sent.rows:,} rows, and the truth about "
        f"{sent.labelled:,} of them; {sent.refused:,} were refused, {sent.lost:,} got no answer"
    )


if __name__ == "__main__":
    typer.run(main)
