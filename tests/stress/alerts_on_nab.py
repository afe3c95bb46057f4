"""Count how many alerts per day the rules raise on real time series.

The series are those of the Numenta Anomaly Benchmark (github.com/numenta/NAB), in folders with
`timestamp,value` files. Each simulates one service: a forest is trained on the first 15 % of the
readings (value, mean and standard deviation of the last 12), as in the benchmark, and scores the
rest. `promtool test rules` evaluates the real rules on the metrics that the service would have
exposed every five minutes.

    python -m tests.stress.alerts_on_nab [FOLDER] [--shuffled]

`--shuffled` draws the rows of each series in random order: then they are all like training's, and
an alert is a false one.
"""

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from sklearn.ensemble import IsolationForest

from service.model.baseline import Baseline
from service.model.pvalues import PValues
from service.model.scorer import compile_forest
from tests.stress.false_alarms import LEVEL
from tests.support import cards
from training.calibration import calibrate, score_out_of_bag

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "nab"
STEP = 300  # seconds between two scrapes, and between most readings
LAST = 12  # readings in the window of a row: an hour
TRAINED = 0.15  # NAB's probationary period, in which nothing is scored
MEASURED = 6  # scrapes from one measurement of drift to the next
PIECE = 6 * 3600  # seconds
TOGETHER = 6  # services in one run of promtool
LONGEST = 30 * 86_400 // STEP  # scrapes: longer series end here


def read(path):
    """Return the time of each row in seconds (n,), and the rows (n, 3)."""
    table = np.genfromtxt(path, delimiter=",", skip_header=1, dtype=None, encoding="utf-8")
    times = np.array(["T".join(row[0].split()) for row in table], dtype="datetime64[s]")
    windows = np.lib.stride_tricks.sliding_window_view([float(row[1]) for row in table], LAST)
    rows = np.column_stack([windows[:, -1], windows.mean(axis=1), windows.std(axis=1)])
    order = np.argsort(times[LAST - 1 :], kind="stable")
    return times[LAST - 1 :].astype(int)[order], rows[order]


def quantiles(values):
    return np.quantile(values, np.linspace(0, 1, 101)).tolist()


def watch(path, shuffled=False):
    """Return {metric: values at each scrape} of the service simulated by a series."""
    times, rows = read(path)
    if shuffled:
        rows = np.random.default_rng(16).permutation(rows)
    split = int(len(rows) * TRAINED)
    forest = IsolationForest(random_state=16).fit(rows[:split])
    trained, scores = forest.decision_function(rows[:split]), forest.decision_function(rows[split:])
    kept = calibrate(*score_out_of_bag(forest, compile_forest(forest), rows[:split]))
    columns = [cards.number(str(j), quantiles(column)) for j, column in enumerate(rows[:split].T)]
    times, rows = times[split:], rows[split:]
    baseline = Baseline("0" * 12, columns, quantiles(trained))

    scrapes = np.arange(times[0], times[-1] + STEP, STEP)[:LONGEST]
    seen = np.searchsorted(times, scrapes, side="right")
    outliers = np.concatenate([[0], np.cumsum(scores < 0)])[seen]
    low = np.zeros(len(scores), dtype=bool)
    if kept.rows:
        low = PValues(kept.rows, np.array(kept.scores)).of(scores) <= LEVEL
    drift = [np.nan] * len(scrapes)
    for i in range(len(scrapes)):
        if i % MEASURED == 0:
            measured = baseline.measure(
                lambda _, most, end=seen[i]: (
                    {str(j): column for j, column in enumerate(rows[:end][-most:].T)},
                    scores[:end][-most:],
                )
            )
            found = [*measured.features.values(), measured.score]
            largest = max((index for index in found if index is not None), default=np.nan)
        drift[i] = largest
    return {
        "isoserve_samples_total": seen,
        "isoserve_outliers_total": outliers,
        f'isoserve_pvalue_below_total{{level="{LEVEL}"}}': np.concatenate([[0], np.cumsum(low)])[
            seen
        ],
        "isoserve_pvalue_rows": np.full(len(scrapes), kept.rows or np.nan),
        "isoserve_drift_psi": drift,
        "isoserve_threshold": np.zeros(len(scrapes), dtype=int),
        "isoserve_training_outlier_share": np.full(len(scrapes), (trained < 0).mean()),
        "up": np.ones(len(scrapes), dtype=int),
    }


def series(name, job, values):
    shown = " ".join("_" if np.isnan(v) else f"{v:.6g}" if v % 1 else str(int(v)) for v in values)
    labels = f'job="{job}", instance="{job}"'
    name, brace, others = name.partition("{")
    return {"series": f"{name}{{{labels}{', ' + others if brace else '}'}", "values": shown}


def case(services):
    """Return a test case that runs the rules over some services.

    Every six hours a query counts the alerts that began to fire since the last one. The expected
    result is empty, so promtool prints the actual one. A query may read at most 10,000 samples
    there, hence the pieces.
    """
    end = max(len(values["up"]) for values in services.values()) * STEP
    firing = 'ALERTS{alertstate="firing"}'
    began = f"({firing} unless {firing} offset 10m)[{PIECE}s:10m]"
    expression = f"sum by (alertname, job) (count_over_time({began}))"
    return {
        "interval": f"{STEP}s",
        "input_series": [
            series(name, job, values)
            for job, metrics in services.items()
            for name, values in metrics.items()
        ],
        "promql_expr_test": [
            {"expr": expression, "eval_time": f"{time}s"}
            for time in range(PIECE, end + PIECE, PIECE)
        ],
    }


def count_alerts(services):
    """Return a Counter of (alert, job): how often it began to fire."""
    names = sorted(services, key=lambda name: len(services[name]["up"]))
    groups = [names[i : i + TOGETHER] for i in range(0, len(names), TOGETHER)]
    content = {
        "rule_files": [str(path) for path in sorted((ROOT / "monitoring/rules").glob("*.yml"))],
        "evaluation_interval": "10m",
        "group_eval_order": ["isoserve-recording", "isoserve-alerts"],
        "tests": [case({name: services[name] for name in group}) for group in groups],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nab_test.yml"
        path.write_text(yaml.safe_dump(content, width=float("inf")))
        done = subprocess.run(
            ["promtool", "test", "rules", path], capture_output=True, text=True, check=False
        )
    text = done.stdout + done.stderr
    if " err: " in text:
        raise SystemExit(text[:2000])
    found = re.findall(r'\{alertname="(\w+)", job="([^"]+)"\} ([\d.E+]+)', text)
    times = Counter()
    for alert, job, number in found:
        times[alert, job] += int(float(number))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=DATA)
    parser.add_argument("--shuffled", action="store_true", help="draw rows in random order")
    options = parser.parse_args()
    folder = options.folder
    paths = sorted(folder.glob("real*/*.csv"))
    if not paths:
        print(f"skipped: {folder} has none of NAB's series (real*/*.csv)")
        return
    services = {f"isoserve-{path.stem}": watch(path, options.shuffled) for path in paths}
    alerts = count_alerts(services)
    days = sum(len(values["up"]) for values in services.values()) * STEP / 86_400
    for (alert, job), times in sorted(alerts.items()):
        print(f"{times:3}  {alert:26}{job}")
    quiet = len(services) - len({job for _, job in alerts})
    print(
        f"{alerts.total()} alerts on {len(services)} services in {days:.0f} days of service: "
        f"{alerts.total() / days:.2f} a day; {quiet} services never had one"
    )


if __name__ == "__main__":
    main()
