"""tritonclient[http] against the service."""

from functools import partial

import numpy as np
import tritonclient.http as triton
from report import read_case, same, try_out
from tritonclient.utils import InferenceServerException

CLIENT = "tritonclient"

case = read_case()
rows = np.array(case.rows)
client = triton.InferenceServerClient(case.address)


def table(values=rows, datatype="FP64", binary=True, name="any name"):
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def infer(inputs, outputs=None, **options):
    wanted = None if outputs is None else [
        triton.InferRequestedOutput(name, binary_data=binary) for name, binary in outputs
    ]  # fmt: skip
    return client.infer(case.model, inputs, outputs=wanted, **options)


def check(answer):
    same(answer.as_numpy("predict").tolist(), case.labels)
    same(answer.as_numpy("decision_function").tolist(), case.scores)
    same(answer.as_numpy("score_samples").tolist(), case.samples)
    same(answer.as_numpy("threshold").tolist(), [case.threshold])


def health():
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(case.model)
    assert not client.is_model_ready("another")


def in_path():
    assert client.is_model_ready(case.model, case.version)
    assert not client.is_model_ready(case.model, "another")
    check(infer([table()], model_version=case.version))


def metadata():
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    model = client.get_model_metadata(case.model, case.version)
    same([given["name"] for given in model["inputs"]], case.columns)
    same(model["versions"], [case.version])
    # What the metadata promise is what comes.
    answer = infer([table()], [(output["name"], True) for output in model["outputs"]])
    for output in model["outputs"]:
        found = answer.get_output(output["name"])
        same(found["datatype"], output["datatype"])
        same(len(found["shape"]), len(output["shape"]))


def versions():
    answer = infer([table()], model_version=case.version, request_id="42").get_response()
    same((answer["model_version"], answer["id"]), (case.version, "42"))
    assert infer([table()]).get_response()["id"]


def chosen():
    answer = infer([table()], [("decision_function", False), ("contributions", True)])
    same([output["name"] for output in answer.get_response()["outputs"]],
         ["decision_function", "contributions"])  # fmt: skip
    same(answer.as_numpy("contributions").shape, rows.shape)
    same(answer.as_numpy("predict"), None)


def columns():
    by_name = dict(zip(case.columns, rows.T, strict=True))
    inputs = [table(by_name[name], name=name, binary=name == case.columns[0])
              for name in reversed(case.columns)]  # fmt: skip
    check(infer(inputs))


def datatypes():
    single = rows.astype(np.float32)
    expected = infer([table(single.astype(np.float64))]).as_numpy("decision_function")
    for binary in (True, False):
        found = infer([table(single, "FP32", binary)]).as_numpy("decision_function")
        same(found.tolist(), expected.tolist())
    whole = np.arange(2 * rows.shape[1]).reshape(2, -1)
    expected = infer([table(whole.astype(np.float64))]).as_numpy("decision_function")
    kinds = {"INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
             "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
             "FP16": np.float16, "FP32": np.float32}  # fmt: skip
    for datatype, kind in kinds.items():
        found = infer([table(whole.astype(kind), datatype)]).as_numpy("decision_function")
        same(found.tolist(), expected.tolist())
    text = np.array([str(cell).encode() for cell in whole.ravel()], object).reshape(whole.shape)
    found = infer([table(text, "BYTES")]).as_numpy("decision_function")
    same(found.tolist(), expected.tolist())


def index():
    same(client.get_model_repository_index(), [
        {"name": case.model, "version": case.version, "state": "READY", "reason": ""}
    ])  # fmt: skip


def refusal():
    try:
        infer([table(np.ones((1, rows.shape[1] + 1)))])
    except InferenceServerException as error:
        same(error.status(), "400")
        assert "this model expects" in error.message()
        return
    raise AssertionError("nothing was refused")


packed = {name: partial(infer, [table()], request_compression_algorithm=name)
          for name in ("gzip", "deflate")}  # fmt: skip

for feature, use in {
    "live, ready, model ready": health,
    "a version in the path": in_path,
    "metadata of server and model are true": metadata,
    "infer, JSON": lambda: check(infer([table(binary=False)])),
    "infer, binary tensors in and out": lambda: check(infer([table()])),
    "infer, binary and JSON mixed": lambda: check(
        infer([table()], [("predict", True), ("decision_function", False),
                          ("score_samples", True), ("threshold", False)])
    ),
    "one input a column, in any order": columns,
    "outputs chosen by name, contributions too": chosen,
    "model_version and id come back": versions,
    "integers of all sizes, FP16, FP32, BYTES": datatypes,
    "gzip body": lambda: check(packed["gzip"]()),
    "deflate body": lambda: check(packed["deflate"]()),
    "repository index": index,
    "a wrong request is refused in words": refusal,
}.items():  # fmt: skip
    try_out(CLIENT, feature, use)
