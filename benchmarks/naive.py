"""The service that people write first: Flask, scikit-learn and prometheus_client, a screenful.

It is what ours is measured against, and shows what ours has to do better: its counts are a
process's own, and a wrong column is an error 500.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
from flask import Flask, Response, jsonify, request
from prometheus_client import REGISTRY, Counter, Histogram, generate_latest

app = Flask("naive")
model = pickle.loads(Path(os.environ["ISOSERVE_MODEL"]).read_bytes())
samples = Counter("samples", "Samples scored.")
outliers = Counter("outliers", "Outliers among them.")
durations = Histogram("request_seconds", "Time to answer.")


@app.post("/predict")
@durations.time()
def predict() -> Response:
    """Answer a Seldon message with its labels."""
    rows = np.array(request.get_json()["data"]["ndarray"])
    labels = (model.predict(rows) == -1).astype(int)
    samples.inc(len(labels))
    outliers.inc(int(labels.sum()))
    return jsonify(data={"names": [], "ndarray": labels.tolist()}, meta={})


@app.get("/metrics")
def metrics() -> Response:
    """Expose this process's counts."""
    return Response(generate_latest(REGISTRY), mimetype="text/plain")
