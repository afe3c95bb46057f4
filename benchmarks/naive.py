"""A minimal service of Flask, scikit-learn and prometheus_client, to compare ours with.

Its faults are those that ours must not have: each process has counts of its own, and a wrong column
is answered with 500.
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
    """Answer a Seldon message with labels."""
    rows = np.array(request.get_json()["data"]["ndarray"])
    labels = (model.predict(rows) == -1).astype(int)
    samples.inc(len(labels))
    outliers.inc(int(labels.sum()))
    return jsonify(data={"names": [], "ndarray": labels.tolist()}, meta={})


@app.get("/metrics")
def metrics() -> Response:
    """Expose this process's counts."""
    return Response(generate_latest(REGISTRY), mimetype="text/plain")
