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
    same(answer.get_response()["parameters"]["threshold"], case.threshold)


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
    # Responses match the metadata.
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


def datatype(name, values, binary=True):
    """Send values of a type, and the same as FP64; the scores must be the same."""
    plain = np.array([[float(cell) for cell in row] for row in values])
    expected = infer([table(plain)]).as_numpy("decision_function")
    found = infer([table(values, name, binary)]).as_numpy("decision_function")
    same(found.tolist(), expected.tolist())


whole = np.arange(2 * rows.shape[1]).reshape(2, -1)
odd = whole % 2 == 1
texts = np.array([str(cell).encode() for cell in whole.ravel()], object).reshape(whole.shape)
WHOLE = {f"{sign}INT{8 * size}": f"{kind}{size}"
         for sign, kind in (("", "i"), ("U", "u")) for size in (1, 2, 4, 8)}  # fmt: skip


def both_ways(name, values):
    for binary in (True, False):
        datatype(name, values, binary)


def content_types():
    check(infer([table()], parameters={"content_type": "np"}))
    by_name = dict(zip(case.columns, rows.T, strict=True))
    inputs = [table(by_name[name], name=name) for name in reversed(case.columns)]
    check(infer(inputs, parameters={"content_type": "pd"}))


def gaps():
    values = np.array(case.gaps, np.float64)
    for binary in (True, False):
        answer = infer([table(values, binary=binary)])
        same(answer.as_numpy("decision_function").tolist(), case.gap_scores)


def refused(status, words, use):
    try:
        use()
    except InferenceServerException as error:
        same(error.status(), status)
        assert words in error.message(), error.message()
        return
    raise AssertionError("nothing was refused")


def too_large(algorithm):
    """Send 32 MiB of zeros, which are small when compressed."""
    zeros = np.zeros((2**22 // rows.shape[1], rows.shape[1]))
    refused("413", "unpacks to more than",
            lambda: infer([table(zeros)], request_compression_algorithm=algorithm))  # fmt: skip


def load():
    refused("401", "admin token", lambda: client.load_model(case.model))
    client.load_model(case.model, headers={"Authorization": f"Bearer {case.token}"})
    assert client.is_model_ready(case.model)


def unload():
    admin = {"Authorization": f"Bearer {case.token}"}
    refused("409", "does not unload", lambda: client.unload_model(case.model, headers=admin))


def index():
    same(client.get_model_repository_index(), [
        {"name": case.model, "version": case.version, "state": "READY", "reason": ""}
    ])  # fmt: skip


def refusal():
    wide = np.ones((1, rows.shape[1] + 1))
    refused("400", "this model expects", lambda: infer([table(wide)]))


packed = {name: partial(infer, [table()], request_compression_algorithm=name)
          for name in ("gzip", "deflate")}  # fmt: skip

for feature, use in {
    "live, ready, model ready": health,
    "a version in the path": in_path,
    "metadata of server and model": metadata,
    "infer, JSON": lambda: check(infer([table(binary=False)])),
    "infer, binary tensors in and out": lambda: check(infer([table()])),
    "infer, binary and JSON mixed": lambda: check(
        infer([table()], [("predict", True), ("decision_function", False),
                          ("score_samples", True), ("threshold", False)])
    ),
    "one input per column, in any order": columns,
    "outputs chosen by name, contributions too": chosen,
    "model_version and id are returned": versions,
    "no Content-Type": lambda: check(infer([table()])),  # it never sends one
    "content types np and pd": content_types,
    "unknown parameters are accepted": lambda: check(infer([table()], parameters={"odd": 1})),
    "missing values: null, or NaN in bytes": gaps,
    "BOOL": lambda: both_ways("BOOL", odd),
    "INT8 to INT64, UINT8 to UINT64": lambda: [
        both_ways(name, whole.astype(kind)) for name, kind in WHOLE.items()
    ],
    "FP16": lambda: datatype("FP16", rows[:1].astype(np.float16)),
    "FP32": lambda: both_ways("FP32", rows.astype(np.float32)),
    "BYTES": lambda: both_ways("BYTES", texts),
    "gzip body": lambda: check(packed["gzip"]()),
    "deflate body": lambda: check(packed["deflate"]()),
    "gzip body that decompresses to too much: 413": lambda: too_large("gzip"),
    "deflate body that decompresses to too much: 413": lambda: too_large("deflate"),
    "repository index": index,
    "load, with the admin token only": load,
    "unload is refused with a reason": unload,
    "a wrong request is refused with a reason": refusal,
}.items():  # fmt: skip
    try_out(CLIENT, feature, use)
