"""Test real clients against a running service and write docs/internals/conformance.md.

    python -m tests.interop              all clients
    python -m tests.interop triton       this client only; nothing is written

    python -m tests.interop --current    exit code 0 if the page was written for this code

Each client's script runs in its own environment; `make nightly ONLY=interop` creates them.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from service.model.content import read_model_file
from service.model.file import load_fitted, load_model
from tests.support.running import serving

from .report import Case

ROOT = Path(__file__).parents[2]
TOKEN = "a token for nothing but tests"
HERE = Path(__file__).parent
PAGE = ROOT / "docs/internals/conformance.md"

# script -> its environment; "" is this one.
SCRIPTS = {
    "plain": "",
    "seldon": ".venv-seldon",
    "triton": ".venv-clients",
    "kserve_client": ".venv-clients",
    "mlserver_infer": ".venv-mlserver",
    "mlflow_client": ".venv-clients",
}

# The package whose version is reported with each client.
VERSIONS = {
    "seldon": "seldon-core",
    "triton": "tritonclient",
    "kserve_client": "kserve",
    "mlserver_infer": "mlserver",
    "mlflow_client": "mlflow-skinny",
}

# The rows of the page: every feature that a script may report.
FEATURES = {
    "Seldon v1": [
        "data.ndarray",
        "data.tensor",
        "jsonData",
        "names of columns, in any order",
        "missing values: null or NaN",
        "exact scores on request",
        "explanations on request",
        "answers parse as protobuf messages",
        "answers as dict",
        "puid, tags and requestPath are returned",
        "gauges in meta.metrics",
        "message in a form field",
        "message in the query",
        "message in parts",
        "transform-input",
        "names are returned by transform-input",
        "transform-output returns the message",
        "route and aggregate are refused with a reason",
        "a wrong message is refused with a reason",
        "a compressed message is refused with a reason",
        "404, 405 and 413 in Seldon's shape",
        "strData is refused with a reason",
        "binData is refused with a reason",
        "data.tftensor is refused with a reason",
        "feedback",
        "health and metadata",
        "health, metadata and feedback before the first prediction",
        "configured by the variables of Seldon's wrapper only",
        "/seldon.json",
        "every origin is allowed, also in preflight requests",
    ],
    "Open Inference Protocol": [
        "live, ready, model ready",
        "a version in the path",
        "metadata of server and model",
        "infer, JSON",
        "data flat and nested",
        "no Content-Type",
        "infer, binary tensors in and out",
        "infer, binary and JSON mixed",
        "one input per column, in any order",
        "outputs chosen by name, contributions too",
        "model_version and id are returned",
        "content types np and pd",
        "unknown parameters are accepted",
        "missing values: null, or NaN in bytes",
        "BOOL",
        "INT8 to INT64, UINT8 to UINT64",
        "FP16",
        "BF16",
        "FP32",
        "BYTES",
        "gzip body",
        "deflate body",
        "gzip body that decompresses to too much: 413",
        "deflate body that decompresses to too much: 413",
        "another encoding is refused: 415",
        "rows that the client combines into batches",
        "repository index",
        "load, with the admin token only",
        "unload is refused with a reason",
        "a wrong request is refused with a reason",
        "405, 413 and 415 in the protocol's shape",
        "unknown paths answer in the protocol's shape",
    ],
    "MLflow": [
        "/ping and /version",
        "dataframe_split: a DataFrame, its columns in any order",
        "dataframe_records",
        "instances: objects",
        "instances: an array",
        "inputs: an array",
        "inputs: lists by name",
        "CSV",
        "missing values: null, NaN or an empty cell",
        "gzip and deflate bodies",
        "exact scores with ?scores=1",
        "params are accepted",
        "a wrong table is refused with a reason",
        "another encoding or type is refused: 415",
        "405, 413 and 415 in MLflow's shape, with MLflow's error_code",
    ],
    "Documents": [
        "/openapi.json: every route",
        "/docs: the page, its files and their licences",
    ],
}


WATCHED = ["service/protocols", "service/web", "requirements"]
"""Folders whose changes could affect clients."""


def digest() -> str:
    """Return 16 hexadecimal digits that differ when a file in WATCHED does."""
    files = [path for folder in WATCHED for path in (ROOT / folder).rglob("*.*")]
    found = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file() and path.suffix != ".pyc"):
        found.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def main(names: list[str]) -> int:
    """Run the scripts and return how many features failed."""
    if names == ["--current"]:
        return digest() not in PAGE.read_text()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder))
        model, log = Path(folder, "model.pickle"), Path(folder, "log.txt")
        with serving(model, log, admin_token=TOKEN) as service:
            case = Path(folder, "case.json")
            case.write_text(json.dumps(asdict(make_case(service.port, Path(folder)))))
            for name in names or SCRIPTS:
                found += run(name, case)
    if not names:
        PAGE.write_text(render(found))
    failed = [said for said in found if said["fault"]]
    print(f"{len(found) - len(failed)} passed, {len(failed)} failed")
    return len(failed)


def train(folder: Path) -> None:
    """Train a model of two columns that allows missing values."""
    table = np.random.default_rng(16).lognormal(size=(5000, 2))
    table[::50, 0] = table[25::50, 1] = np.nan
    lines = [
        ",".join("" if np.isnan(cell) else repr(cell) for cell in row) for row in table.tolist()
    ]
    Path(folder, "table.csv").write_text("\n".join(["mean,sd", *lines]))
    options = ["--dataset", folder / "table.csv", "--save_path", folder]
    command = [sys.executable, "-m", "training.train", *options]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def make_case(port: int, folder: Path) -> Case:
    """Return rows, and scikit-learn's own labels and scores for them."""
    model = load_model(folder / "model.pickle")
    fitted = load_fitted(read_model_file(folder / "model.pickle"))
    rows = np.random.default_rng(8).lognormal(sigma=1.5, size=(7, len(model.features)))
    rows[2] *= 1000
    scores = fitted.decision_function(rows)
    gaps = rows.copy()
    gaps[1, 0] = gaps[4, 1] = np.nan
    gap_scores = fitted.decision_function(gaps)
    return Case(
        host="127.0.0.1",
        port=port,
        model="isoserve",
        version=model.version,
        folder=str(folder),
        columns=list(model.features),
        rows=rows.tolist(),
        labels=(scores < 0).astype(int).tolist(),
        scores=scores.tolist(),
        samples=fitted.score_samples(rows).tolist(),
        threshold=0.0,
        gaps=np.where(np.isnan(gaps), None, gaps).tolist(),
        gap_labels=(gap_scores < 0).astype(int).tolist(),
        gap_scores=gap_scores.tolist(),
        token=TOKEN,
    )


def run(name: str, case: Path) -> list[dict]:
    """Run one client's script and return its reports."""
    python = ROOT / SCRIPTS[name] / "bin/python" if SCRIPTS[name] else Path(sys.executable)
    if name == "seldon":
        install_isoserve(python)
    done = subprocess.run(
        [python, f"{name}.py", case],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"client"')]
    if done.returncode or not said:
        said.append({"client": name, "feature": "", "fault": done.stderr[-2000:]})
    if name in VERSIONS:
        ask = f"from importlib.metadata import version; print(version({VERSIONS[name]!r}))"
        answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
        said = [one | {"version": f"{VERSIONS[name]} {answer.stdout.strip()}"} for one in said]
    for one in said:
        print(f"{one['client']}: {one['feature']}: {one['fault'] or 'passed'}", flush=True)
    return said


def install_isoserve(python: Path) -> None:
    """Install the current isoserve into an environment, without its dependencies."""
    with tempfile.TemporaryDirectory() as folder:
        build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
        subprocess.run([sys.executable, "-m", *build, ROOT], check=True, capture_output=True)
        (wheel,) = Path(folder).glob("*.whl")
        install = ["pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel]
        subprocess.run([python, "-m", *install], check=True, capture_output=True)


def render(found: list[dict]) -> str:
    """Return the page."""
    versions = {}
    for said in found:
        versions[said["client"]] = said.get("version", "")
    lines = [
        "# Conformance",
        "",
        "`make nightly ONLY=interop` writes this page: each client below uses a running service,",
        "whose model knows its columns and missing values. Labels, and scores where an answer has",
        "them, must equal scikit-learn's to the last bit. An empty cell was not tried, most often",
        f"because the client has no such call. Written with isoserve {version('isoserve')};",
        f"{', '.join(f'`{folder}`' for folder in WATCHED)} had the digest {digest()}.",
    ]
    for contract, features in FEATURES.items():
        clients = [name for name in versions if any(
            said["client"] == name and said["feature"] in features for said in found)]  # fmt: skip
        lines += ["", f"## {contract}", "", f"| feature | {' | '.join(clients)} |"]
        lines.append("| --- |" + " --- |" * len(clients))
        for feature in features:
            cells = [cell(found, client, feature) for client in clients]
            lines.append(f"| {feature} | {' | '.join(cells)} |")
    known = {feature for features in FEATURES.values() for feature in features}
    if strange := {said["feature"] for said in found} - known - {""}:
        raise SystemExit(f"no row for {', '.join(sorted(strange))}")
    lines += ["", "## Versions", "", "| client | package |", "| --- | --- |"]
    lines += [f"| {name} | {package} |" for name, package in versions.items() if package]
    return "\n".join(lines) + "\n"


def cell(found: list[dict], client: str, feature: str) -> str:
    """Return the result of one client's attempt, or an empty text."""
    faults = [said["fault"] for said in found
              if (said["client"], said["feature"]) == (client, feature)]  # fmt: skip
    if not faults:
        return ""
    return "**failed**" if any(faults) else "passed"


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
