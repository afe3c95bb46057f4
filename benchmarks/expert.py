"""An expert's afternoon: the fastest parts one can buy, put together without what makes a product.

Granian serves a WSGI function that reads JSON with orjson and scores with the isolation forest of
`coniferest`, fitted on the same rows. It counts, records, checks and logs nothing, and its scores
are not scikit-learn's. `python -m benchmarks.expert` serves it on ISOSERVE_PORT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson
from coniferest.isoforest import IsolationForest
from granian import Granian
from granian.constants import Interfaces

from service.settings import Settings

from .forests import subject

FOREST = IsolationForest(n_trees=100, n_subsamples=256, random_seed=16, n_jobs=1)
FOREST.fit(np.asarray(subject("small").rows[:10_000], dtype=np.float64))
THRESHOLD = -0.5


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer 1 for each outlier and 0 for each inlier."""
    rows = np.array(orjson.loads(environ["wsgi.input"].read())["data"]["ndarray"], dtype=np.float64)
    labels = (FOREST.score_samples(rows) < THRESHOLD).astype(int)
    body = orjson.dumps({"data": {"names": [], "ndarray": labels.tolist()}, "meta": {}})
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    )
    return [body]


if __name__ == "__main__":
    settings = Settings.read()
    Granian(
        "benchmarks.expert:app", address=settings.host, port=settings.port,
        interface=Interfaces.WSGI, workers=settings.workers, log_enabled=False,
    ).serve()  # fmt: skip
