"""KServe's InferenceRESTClient against the service."""

import asyncio

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from report import read_case, same, try_out

CLIENT = "KServe InferenceRESTClient"

case = read_case()
rows = np.array(case.rows)


def ask(do):
    """Return the result of `do` with a new client."""

    async def run():
        config = RESTConfig(protocol="v2", retries=0, timeout=30)
        client = InferenceRESTClient(config)
        try:
            return await do(client)
        finally:
            await client.close()

    return asyncio.run(run())


def table(values=rows, name="input-0", binary=False, datatype="FP64"):
    given = InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def infer(inputs, outputs=None, name=case.model, **parameters):
    wanted = [RequestedOutput(output, {"binary_data": binary}) for output, binary in outputs or []]
    request = InferRequest(
        model_name=name,
        infer_inputs=inputs,
        request_outputs=wanted or None,
        parameters=parameters or None,
        request_id="42",
    )
    return ask(lambda client: client.infer(case.url, request, model_name=name))


def found(answer, name):
    (output,) = (output for output in answer.outputs if output.name == name)
    return output.as_numpy()


def check(answer):
    same(found(answer, "predict").tolist(), case.labels)
    same(found(answer, "decision_function").tolist(), case.scores)
    same(found(answer, "score_samples").tolist(), case.samples)
    same(answer.parameters["threshold"], case.threshold)
    same(answer.id, "42")  # this client does not read the version


def health():
    assert ask(lambda client: client.is_server_live(case.url))
    assert ask(lambda client: client.is_server_ready(case.url))
    assert ask(lambda client: client.is_model_ready(case.url, case.model))
    assert not ask(lambda client: client.is_model_ready(case.url, "another"))


def columns(**parameters):
    by_name = dict(zip(case.columns, rows.T, strict=True))
    check(infer([table(by_name[name], name) for name in reversed(case.columns)], **parameters))


def content_types():
    check(infer([table()], content_type="np"))
    columns(content_type="pd")


def chosen():
    answer = infer([table()], [("contributions", False)])
    same([output.name for output in answer.outputs], ["contributions"])
    same(found(answer, "contributions").shape, rows.shape)


def datatype(name, values, ways=(True, False)):
    """Send values of a type, and the same as FP64; the scores must be the same."""
    plain = np.array([[float(cell) for cell in row] for row in values])
    expected = found(infer([table(plain)]), "decision_function")
    for binary in ways:
        answer = infer([table(values, binary=binary, datatype=name)])
        same(found(answer, "decision_function").tolist(), expected.tolist())


whole = np.arange(2 * rows.shape[1]).reshape(2, -1)
texts = np.array([str(cell).encode() for cell in whole.ravel()], object).reshape(whole.shape)
WHOLE = {f"{sign}INT{8 * size}": f"{kind}{size}"
         for sign, kind in (("", "i"), ("U", "u")) for size in (1, 2, 4, 8)}  # fmt: skip


def gaps():
    values = np.array(case.gaps, np.float64)
    for binary in (True, False):
        answer = infer([table(values, binary=binary)])
        same(found(answer, "decision_function").tolist(), case.gap_scores)


def refusal():
    try:
        infer([table(np.ones((1, rows.shape[1] + 1)))])
    except httpx.HTTPStatusError as error:
        same(error.response.status_code, 400)
        assert "this model expects" in str(error)
        return
    raise AssertionError("nothing was refused")


OUTPUTS = ("predict", "decision_function", "score_samples")

for feature, use in {
    "live, ready, model ready": health,
    "infer, JSON": lambda: check(infer([table()])),
    "infer, binary tensors in and out": lambda: check(
        infer([table(binary=True)], [(name, True) for name in OUTPUTS])
    ),
    "infer, binary and JSON mixed": lambda: check(infer([table(binary=True)])),
    "one input per column, in any order": columns,
    "outputs chosen by name, contributions too": chosen,
    "content types np and pd": content_types,
    "unknown parameters are accepted": lambda: check(infer([table()], odd=1)),
    "missing values: null, or NaN in bytes": gaps,
    "BOOL": lambda: datatype("BOOL", whole % 2 == 1),
    "INT8 to INT64, UINT8 to UINT64": lambda: [
        datatype(name, whole.astype(kind)) for name, kind in WHOLE.items()
    ],
    "FP16": lambda: datatype("FP16", rows[:1].astype(np.float16), ways=[True]),
    "FP32": lambda: datatype("FP32", rows.astype(np.float32)),
    "BYTES": lambda: datatype("BYTES", texts),
    "a wrong request is refused with a reason": refusal,
}.items():
    try_out(CLIENT, feature, use)
