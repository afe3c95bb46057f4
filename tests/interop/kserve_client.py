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
    """Return what `do` gets with a client of its own."""

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
    same(found(answer, "threshold").tolist(), [case.threshold])
    same(answer.id, "42")  # this client does not read the version


def health():
    assert ask(lambda client: client.is_server_live(case.url))
    assert ask(lambda client: client.is_server_ready(case.url))
    assert ask(lambda client: client.is_model_ready(case.url, case.model))
    assert not ask(lambda client: client.is_model_ready(case.url, "another"))


def columns():
    by_name = dict(zip(case.columns, rows.T, strict=True))
    inputs = [table(by_name[name], name) for name in reversed(case.columns)]
    check(infer(inputs))
    check(infer(inputs, content_type="pd"))


def chosen():
    answer = infer([table()], [("contributions", False)])
    same([output.name for output in answer.outputs], ["contributions"])
    same(found(answer, "contributions").shape, rows.shape)


def datatypes():
    single = rows.astype(np.float32)
    expected = found(infer([table(single.astype(np.float64))]), "decision_function")
    for binary in (True, False):
        answer = infer([table(single, binary=binary, datatype="FP32")])
        same(found(answer, "decision_function").tolist(), expected.tolist())


def refusal():
    try:
        infer([table(np.ones((1, rows.shape[1] + 1)))])
    except httpx.HTTPStatusError as error:
        same(error.response.status_code, 400)
        assert "this model expects" in str(error)
        return
    raise AssertionError("nothing was refused")


OUTPUTS = ("predict", "decision_function", "score_samples", "threshold")

for feature, use in {
    "live, ready, model ready": health,
    "infer, JSON": lambda: check(infer([table()])),
    "infer, binary tensors in and out": lambda: check(
        infer([table(binary=True)], [(name, True) for name in OUTPUTS])
    ),
    "infer, binary and JSON mixed": lambda: check(infer([table(binary=True)])),
    "one input a column, in any order": columns,
    "outputs chosen by name, contributions too": chosen,
    "FP32 tensors": datatypes,
    "a wrong request is refused in words": refusal,
}.items():
    try_out(CLIENT, feature, use)
