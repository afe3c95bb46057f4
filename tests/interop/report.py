"""The input of a client's script, and its output: one line of JSON for each feature."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A running service, some rows, and scikit-learn's labels and scores for them."""

    host: str
    port: int
    model: str
    version: str
    folder: str
    """The folder of model.pickle."""
    columns: list[str]
    rows: list[list[float]]
    labels: list[int]
    scores: list[float]
    samples: list[float]
    threshold: float
    gaps: list[list[float | None]]
    """Rows with missing values."""
    gap_labels: list[int]
    gap_scores: list[float]
    token: str
    """The admin token."""

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"


def read_case() -> Case:
    """Return the case whose file is named on the command line."""
    return Case(**json.loads(Path(sys.argv[1]).read_text()))


def try_out(client: str, feature: str, use: Callable[[], object]) -> None:
    """Report whether a client can use a feature: whether `use` raises nothing."""
    try:
        use()
        fault = ""
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"[:500]
    print(json.dumps({"client": client, "feature": feature, "fault": fault}), flush=True)


def same(found: object, expected: object) -> None:
    """Raise AssertionError if two values differ; floats must be equal to the last bit."""
    if found != expected:
        raise AssertionError(f"{str(found)[:200]} is not {str(expected)[:200]}")
