"""MLflow's own client of its scoring server against the service."""

import json
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
from mlflow.protos.databricks_pb2 import ErrorCode
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from report import read_case, same, try_out

CLIENT = "MLflow ScoringServerClient"

case = read_case()
rows = np.array(case.rows)
by_name = {name: rows[:, j].tolist() for j, name in enumerate(case.columns)}
objects = [dict(zip(case.columns, row, strict=True)) for row in case.rows]
client = ScoringServerClient(case.host, case.port)


def check(data, **params):
    answer = client.invoke(data, **params)
    same(answer.get_predictions("ndarray").tolist(), case.labels)


def frame():
    table = pd.DataFrame(rows, columns=case.columns)
    check(table)
    check(table[case.columns[::-1]])


def gaps():
    table = pd.DataFrame(np.array(case.gaps, np.float64), columns=case.columns)
    answer = client.invoke(table)
    same(answer.get_predictions("ndarray").tolist(), case.gap_labels)


def refusal():
    try:
        client.invoke(np.ones((1, rows.shape[1] + 1)))
    except Exception as error:
        assert "error code 400" in str(error)
        assert "this model expects" in str(error)
        return
    raise AssertionError("nothing was refused")


def error_codes():
    """Check that every error has a code that MLflow knows."""
    for status, kind, body in ((405, "", None), (400, "application/json", b"{"),
                               (413, "application/json", b" " * (2**24 + 1)),
                               (415, "text/plain", b"x")):  # fmt: skip
        request = urllib.request.Request(
            f"{case.url}/invocations", body, {"Content-Type": kind} if kind else {}
        )
        try:
            urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            same(error.code, status)
            ErrorCode.Value(json.load(error)["error_code"])  # else ValueError
        else:
            raise AssertionError(f"{status} was not refused")


def health():
    client.wait_server_ready(timeout=5)
    assert client.get_version()


for feature, use in {
    "/ping and /version": health,
    "dataframe_split: a DataFrame, its columns in any order": frame,
    "inputs: an array": lambda: check(rows),
    "inputs: lists by name": lambda: check(json.dumps({"inputs": by_name})),
    "instances: an array": lambda: check(json.dumps({"instances": case.rows})),
    "instances: objects": lambda: check(json.dumps({"instances": objects})),
    "dataframe_records": lambda: check(json.dumps({"dataframe_records": objects})),
    "missing values: null, NaN or an empty cell": gaps,
    "params are accepted": lambda: check(rows, params={"anything": 1}),
    "a wrong table is refused with a reason": refusal,
    "405, 413 and 415 in MLflow's shape, with MLflow's error_code": error_codes,
}.items():
    try_out(CLIENT, feature, use)
