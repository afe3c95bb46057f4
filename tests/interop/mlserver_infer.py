"""`mlserver infer`, MLServer's batch client, against the service."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from report import read_case, same, try_out

CLIENT = "mlserver infer"

case = read_case()


def send(requests, *options):
    """Return the answers to some requests, in their order."""
    with tempfile.TemporaryDirectory() as name:
        sent, got = Path(name, "in"), Path(name, "out")
        sent.write_text("".join(json.dumps(request) + "\n" for request in requests))
        program = Path(sys.executable).with_name("mlserver")
        command = [program, "infer", "-u", case.address, "-m", case.model, "-i", sent, "-o", got]
        run = subprocess.run(
            [*command, "-w", "4", *options],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if run.returncode:
            raise AssertionError(run.stderr[-400:])
        answers = [json.loads(line) for line in got.read_text().splitlines()]
    return sorted(answers, key=lambda answer: answer["parameters"]["batch_index"])


def request(data, shape, **more):
    tensor = {"name": "x", "datatype": "FP64", "shape": shape, "data": data}
    return {"inputs": [{**tensor, **more}]}


def check(answer):
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    same(outputs["predict"], case.labels)
    same(outputs["decision_function"], case.scores)
    same(answer["model_version"], case.version)


shape = [len(case.rows), len(case.columns)]
flat = [cell for row in case.rows for cell in row]
whole = [request(case.rows, shape), request(flat, shape)]


def content_types():
    typed = {"parameters": {"content_type": "np"}}
    columns = [
        {"name": name, "datatype": "FP64", "shape": [len(case.rows)],
         "data": [row[j] for row in case.rows]} for j, name in enumerate(case.columns)
    ]  # fmt: skip
    frame = {"inputs": columns[::-1], "parameters": {"content_type": "pd"}}
    for answer in send([request(case.rows, shape, **typed), frame]):
        check(answer)


def batches():
    """Check that it combines single rows into requests, and splits the responses."""
    rows = [request([row], [1, len(row)], parameters={"content_type": "np"}) for row in case.rows]
    answers = send(rows, "-s", "3")
    labels = [answer["outputs"][0]["data"] for answer in answers]
    same([label for one in labels for label in one], case.labels)


for feature, use in {
    "infer, JSON": lambda: [check(answer) for answer in send(whole[:1])],
    "data flat and nested": lambda: [check(answer) for answer in send(whole)],
    "content types np and pd": content_types,
    "infer, binary tensors in and out": lambda: [check(a) for a in send(whole, "--binary-data")],
    "rows that the client combines into batches": batches,
}.items():
    try_out(CLIENT, feature, use)
