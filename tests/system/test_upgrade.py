"""Serve the state that the former version has written: every figure must stay.

tests/data/state/version-0.1.0.tar.xz is the state folder of a service of version 0.1.0. It answered
21 predictions and a bad request, took feedback, and its threshold was set twice.
"""

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.support.running import run_python

DATA = Path(__file__).parents[1] / "data"
MODEL = DATA / "forests/columns-1.9.1.joblib"


@pytest.fixture
def former(tmp_path):
    """The state folder of the former version."""
    with tarfile.open(DATA / "state/version-0.1.0.tar.xz") as tar:
        tar.extractall(tmp_path / "state", filter="data")
    (tmp_path / "state").chmod(0o700)
    return tmp_path / "state"


def test_every_figure_of_the_former_version_stays(former, serve, tmp_path):
    service = serve(MODEL, state_dir=former, records=200)
    samples = service.scrape()
    totals = {name: value for (name, labels), value in samples.items() if not labels}
    assert totals["isoserve_samples_total"] == 54
    assert totals["isoserve_outliers_total"] == 35
    assert totals["isoserve_threshold"] == 0.02
    assert totals["isoserve_score_sum"] == -2.1705949374711193
    assert totals["isoserve_feedback_reward"] == 15.75
    assert totals["isoserve_threshold_changes_total"] == 2
    assert totals["isoserve_quarantined_files"] == 0
    requests = {
        labels: n for (name, labels), n in samples.items() if name.endswith("requests_total")
    }
    assert requests[("route", "/predict"), ("status", "2xx")] == 21
    assert requests[("route", "/predict"), ("status", "4xx")] == 1

    about = {"ISOSERVE_STATE_DIR": str(former), "ISOSERVE_MODEL": str(MODEL)}
    text = run_python(("-m", "service", "records", "export", "-"), tmp_path, **about).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert (len(rows), sum(int(row["predicted"]) for row in rows)) == (54, 35)
    assert {"a", "b", "c", "é"} < set(rows[0])
    text = run_python(("-m", "service", "feedback", "summary"), tmp_path, **about).stdout
    numbers = {line[:16].strip(): line.split()[-2:] for line in text.splitlines()[1:5]}
    assert numbers == {
        "true negatives": ["5", "5"], "false positives": ["5", "5"],
        "false negatives": ["5", "5"], "true positives": ["3", "3"],
    }  # fmt: skip
    audit = [json.loads(line) for line in (former / "audit.jsonl").read_text().splitlines()]
    assert [(line["what"], line["new"]) for line in audit] == [
        ("threshold", 0.05),
        ("threshold", 0.02),
    ]
    assert not [line for line in service.log.read_text().splitlines() if "quarantined" in line]


def test_the_former_versions_feedback_takes_new_truths(former, serve):
    service = serve(MODEL, state_dir=former, records=200)
    about = {"response": {"meta": {"puid": "former-1"}}, "truth": {"data": {"ndarray": [[1], [1]]}}}
    status, _ = service.post("/send-feedback", about)
    assert status == 200  # the rows of the prediction are found in the former version's records
