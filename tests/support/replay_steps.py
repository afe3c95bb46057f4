"""The steps of `replay` in order: trainings, settings, requests and commands.

Requests are tables with unusual cells, messages with one wrong part each, and the corpus. In a
path, a header or a body @VERSION@, @ETAG@ and @LAST@ stand for the model's version, the ETag and
the body of the previous answer.
"""

import gzip
import json
import struct
import zlib
from itertools import product
from pathlib import Path
from urllib.parse import quote, urlencode

# fmt: off
JSON, CSV, FORM = "application/json", "text/csv", "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=cut"
MODEL, ADMIN = "/v2/models/isoserve", "/v2/repository/models/isoserve"
KEY, TOKEN = "a key for nothing but tests", "a token for nothing but tests"
OWNER, BOSS = {"X-API-Key": KEY}, {"Authorization": f"Bearer {TOKEN}"}

ROWS, META = [[1, 2], [60, 40]], {
    "puid": "p", "tags": {"t": 1}, "requestPath": {"up": "img:1"},
    "metrics": [{"key": "k", "type": "GAUGE", "value": 1, "tags": {"a": "b"}}]}
MESSAGE = {"data": {"names": ["mean", "sd"], "ndarray": ROWS}}
TENSOR = {"name": "x", "shape": [2, 2], "datatype": "FP64", "data": ROWS}
SD = {"name": "sd", "shape": [2], "datatype": "INT32", "data": [2, 40]}
MEAN = {"name": "mean", "shape": [2, 1], "datatype": "FP32", "data": [[1], [60]]}
NAN, JUDGED = float("nan"), {"response": {"meta": {"puid": "judged"}}}

POSTS = f"""/predict /api/v1.0/predictions /api/v0.1/predictions /transform-input /transform-output
/send-feedback /api/v1.0/feedback /api/v0.1/feedback /route /aggregate {MODEL}/infer /invocations
{MODEL}/versions/@VERSION@/infer /v2/repository/index {ADMIN}/load {ADMIN}/threshold"""
ROUTES = f"""{POSTS} / /predikt /predict/x /live /live/ //ready /ready /ping /health /version /docs
/docs/ /docs/start.js /docs/none /docs/swagger-ui-bundle.js /docs/swagger-ui.css /openapi.json /%zz
/seldon.json /metadata /metrics /api/v1.0/metadata /health/ping /health/status /v2 /v2/ /v2/nowhere
/api/v1.0/health/status //v2/nope /v2//models /v2/health/live /v2/health/ready {MODEL} {MODEL}/ready
{MODEL}/versions/1 {MODEL}/versions/@VERSION@ {MODEL}/versions/@VERSION@/ready /v2/models/other
{MODEL}/versions/1/infer /v2/models/other/ready /v2/models/clf {ADMIN}/unload"""
QUERIES = """scores=1 scores=true scores=True scores=0 scores=FALSE scores= scores=maybe score=1
scores=1&scores=1 Scores=1 explain=1 explain=2&scores=1 explain=0 explain= explain=-1 explain=x
explain=9999999 explain=999999 explain=1&explain=2 explian=1&scores=1 json= json={ scores=%31
%FF=1 source=web&plain=1&_=17&scores=1"""

# JSON to put in place of a number, and bodies with such a place.
CELLS = """null NaN Infinity -Infinity 1e999 -1e999 1e-400 1e39 1e308 -0.0 true false {} [1] [[1]]
"1.5" "-2e3" "1_000" "" "nan" "NaN" "inf" "abc" "0x10" "NA" 9007199254740993 300 0.5 "\u0663" -1
18446744073709551616"""
LONG = ['" 1 "', "1" + "0" * 400, "9" * 5000, f'"{"x" * 9000}"']
FORMS = {
    '{"data":{"ndarray":[[1,2],[3,@]]}}': "/predict?scores=1",
    '{"data":{"names":["mean","sd"],"ndarray":[[60,@]]}}': "/transform-input",
    '{"data":{"tensor":{"shape":[2,2],"values":[1,2,3,@]}}}': "/transform-input?scores=1",
    '{"jsonData":[[@,40]]}': "/predict",
    '{"request":{"data":{"ndarray":[[1,@]]}},"reward":@}': "/send-feedback",
    '{"request":{"meta":{"puid":"judged","tags":{"row":@}}},"reward":1}': "/send-feedback",
    '{"request":{"meta":{"puid":"judged"}},"truth":{"data":{"ndarray":[0,@]}}}': "/send-feedback",
    '{"dataframe_split":{"columns":["sd","mean"],"data":[[1,@]]}}': "/invocations?scores=1",
    '{"dataframe_records":[{"mean":1,"sd":2},{"sd":@,"mean":3}]}': "/invocations",
    '{"inputs":{"mean":[1,2],"sd":[1,@]}}': "/invocations",
    **{f'{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"{kind}","data":[1,@]}}]}}':
       f"{MODEL}/infer" for kind in ("FP64", "FP16", "BYTES", "INT64", "UINT8", "BOOL")},
    '{"threshold":@}': f"{ADMIN}/threshold"}

# Messages to send with one wrong part each, and their paths.
TEMPLATES = [
    ({"meta": {**META, "routing": {"r": 1}}, **MESSAGE}, "/predict"),
    ({"data": {"tensor": {"shape": [2, 2], "values": [1, 2, 60, 40]}}}, "/transform-input"),
    ({"jsonData": ROWS}, "/transform-input"),
    ({"meta": META, "data": {"names": ["s"], "ndarray": [0, 1]}}, "/transform-output"),
    ({"id": "42", "inputs": [{**TENSOR, "parameters": {"content_type": "np"}}], "parameters": {},
      "outputs": [{"name": "predict", "parameters": {"binary_data": False}}]}, f"{MODEL}/infer"),
    ({"inputs": [SD, MEAN], "parameters": {"content_type": "pd"}}, f"{MODEL}/infer"),
    ({"ready": True}, "/v2/repository/index"),
    ({"dataframe_split": {"columns": ["mean", "sd"], "index": [0], "data": ROWS}}, "/invocations"),
    ({"dataframe_records": [{"mean": 1, "sd": 2}, {"sd": 40, "mean": 60}]}, "/invocations"),
    ({"instances": ROWS, "params": {"a": 1}}, "/invocations"),
    ({"inputs": {"mean": [1, 60], "sd": [2, 40]}}, "/invocations?scores=1"),
    ({"request": {"meta": {**META, "puid": "judged", "tags": {"row": 1}}, **MESSAGE}, **JUDGED,
      "reward": 0.5, "truth": {"data": {"ndarray": [1]}}}, "/send-feedback"),
    ({**JUDGED, "truth": {"data": {"tensor": {"shape": [2, 1], "values": [0, 1]}}}},
     "/api/v1.0/feedback"),
]
SELDON = [
    [[1, 2]], {"strData": "x"}, {"jsonData": None, "binData": "AA=="}, {"data": {"tftensor": {}}},
    {"data": {"tensor": {"shape": [1, 2], "values": [7, 8]}, "ndarray": [[8, 9]]}},
    {"data": {"ndarray": [["1", 2]]}, "jsonData": [[7]]}, {**MESSAGE, "meta": {"tags": {"a": NAN}}},
    *({"data": {"tensor": {"shape": shape, "values": ["4", 60, 1, 2]}}}
      for shape in ([-1, 2], [2, -1], [-1, -1], [4], [0, 2], [1, 2, 2])),
    *({"data": {"ndarray": rows}} for rows in ([[1, 2], [3]], [[1, 2, 3]], [[1, 2], "12"], [[]])),
    {**MESSAGE, "meta": {"metrics": [1, "x", {"key": "a", "value": "x"}]}}, "[1,"]
NAMES = """[] ["",""] ["t:0","t:1"] ["t:1","t:0"] ["sd","mean"] ["mean","mean"] ["mean","sdd"]
["mean","zzz"] ["mean"] ["mean","sd","odd"] ["x","y"] ["Mean","sd"] [1,2] [0,1] ["sd",null]"""
TABLES = ["", "mean,sd\n", "mean,sd\n1\n", "mean,sd\n1,2\n3\n", "sd,mean\r\n40,60\r\n\r\n1,2",
          '"mean","sd"\n1.0,"2"\n6e1,40\n', "\ufeffmean,sd\n60,40\n", 'mean\n"' + "x" * 200_000]
TABLES += [f"sd,mean\n{cell},2\n3,4\n" for cell in ("", " ", '""', "NaN", "NA", "null", "inf")]
SHARES = "contributions"
OUTPUTS = [[{"name": name, "parameters": {"binary_data": binary}}]
           for name in ("predict", "decision_function", "threshold", "score_samples", SHARES)
           for binary in (False, True)]
OUTPUTS += [OUTPUTS[9] + OUTPUTS[6] + OUTPUTS[1], ["predict"], [{"name": "predict_proba"}],
            [{"name": "predict", "parameters": {"classification": 2}}]]
TYPES = {"BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B",
         "UINT16": "H", "UINT32": "I", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
         "BF16": "H"}
FEEDBACK = [
    *({**JUDGED, "truth": {"data": {"ndarray": truth}}} for truth in (
        [0, 1], [0, 1], [1, 1], [[0], [1]], ["0", 1.0], [False, True], [1], [0, 1, 1], [-1, 1])),
    *({**JUDGED, "reward": reward} for reward in (1, "0.5", -2.5, 0, None, "good")),
    {"response": {"meta": {"puid": "nobody"}}, "truth": {"data": {"ndarray": [1]}}}, {}, [],
    {"request": {"data": {"ndarray": ROWS}}, "truth": {"data": {"ndarray": [1, 0]}}, "reward": 1},
    {"request": {"meta": {"puid": "a"}}, "response": {"meta": {"puid": "b"}}}, {"truths": {}},
    {"request": {"meta": {"puid": "afar"}, **MESSAGE}, "truth": {"data": {"ndarray": [0, 1]}}}]
COMMANDS = ["", "check", "settings", "counts", "counts reset", "records", "records export",
            "records delete", "records drift", "feedback", "feedback export", "feedback delete"]
AFTERWARDS = ["counts reset", "records export {work}/rows.csv", "records delete", "records drift",
              "records delete --puid p", "records delete --before yesterday", "feedback summary",
              "feedback export {work}/said.csv", "feedback export said.txt",
              "feedback delete --puid afar", "feedback delete --before 2001-01-01"]
WRONG = [{"ISOSERVE_PORT": "x", "ISOSERVE_WORKERS": "0"}, {"ISOSERVE_ADMIN_TOKEN": "short"},
         {"ISOSERVE_NAMES": "m", "ISOSERVE_MAX_DEPTH": "1", "ISOSERVE_THRESHOLD": "nan"},
         {"PREDICTIVE_UNIT_PARAMETERS": '[{"name": "treshold", "value": "1", "type": "INT"}]'},
         {"PREDICTOR_LABELS": "[]"}, {"ISOSERVE_HOST": "203.0.113.1"},
         {"ISOSERVE_MODEL": "nowhere.pickle", "ISOSERVE_ODD": "1"}]
TRAININGS = ["--help", "--contamination 2", "--max_samples x", "--bogus",
             "--dataset {work}/gaps.csv", "--dataset {work}/wide.csv --keep_cols mean,x --label sd"]
# fmt: on


def ask(kind, path, body=b"", content=JSON, method="POST", **headers):
    """Return the step that sends a request; underscores in header names become dashes."""
    if not isinstance(body, bytes):
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers = ({"Content-Type": content} if content else {}) | headers
    step = {"do": "ask", "kind": kind, "method": method, "path": path, "headers": headers}
    return step | {"body": body.decode("latin-1")}


def get(kind, path, **headers):
    return ask(kind, path, content="", method="GET", **headers)


def run(words, file="", **settings):
    return {"do": "run", "words": words, "file": file, "settings": settings}


def serve(name, model, card=True, **settings):
    return {"do": "serve", "name": name, "model": model, "card": card, "settings": settings}


def mutate(value):
    """Yield a JSON value with each part of it replaced, left out, or under another name."""
    yield from (None, True, -1, "x", [1.5], {})
    if not isinstance(value, dict | list):
        return
    for place in list(value) if isinstance(value, dict) else range(len(value)):
        for part in mutate(value[place]):
            changed = value.copy()
            changed[place] = part
            yield changed
        del (rest := value.copy())[place]
        yield rest
        if isinstance(value, dict):
            yield {f"{key}s" if key == place else key: value[key] for key in value}


def ask_routes(*methods, **headers):
    for path, method in product(ROUTES.split(), methods):
        yield ask("routes", path, b"", "", method, **headers)


def ask_headers():
    page = {"Origin": "https://example.org"}
    for path in ("/live", "/predict", "/nowhere", f"{MODEL}/infer", "/invocations"):
        yield ask("headers", path, MESSAGE, **page)
        yield ask("headers", path, method="OPTIONS", Access_Control_Request_Headers="x-a", **page)
        for name in ("mine-1.2_3", "a b", "x" * 65, "ü", ""):
            yield ask("headers", path, MESSAGE, X_Request_ID=name)
        for more in ({"Expect": "100-continue"}, {"Connection": "close"}, {"Host": ""}):
            yield ask("headers", path, MESSAGE, **more)
        text = json.dumps(MESSAGE).encode()
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)
        yield ask("headers", path, chunks, Transfer_Encoding="chunked")
        yield ask("headers", f"{path}?{'x' * 5000}", MESSAGE)
        yield ask("headers", path, MESSAGE, X_Long="x" * 9000)
    for name in ("/docs", "/docs/start.js", "/docs/swagger-ui.css"):
        yield get("headers", name, Accept_Encoding="gzip")
        yield get("headers", name, If_None_Match="@ETAG@", Accept_Encoding="gzip")


def ask_keys():
    keys = [{}, *({"X-API-Key": key} for key in (KEY, KEY[:-1], TOKEN, "ü"))]
    bearers = (f"Bearer {TOKEN}", f"bearer  {KEY}", f"Bearer {TOKEN[:-1]}", KEY, "Basic x", "")
    keys += [{"Authorization": bearer} for bearer in bearers]
    for path, sent in product(("/predict", "/metrics", "/live", f"{ADMIN}/unload"), keys):
        yield ask("keys", path, MESSAGE, **sent)
        yield get("keys", path, **sent)


def ask_corpus():
    odd = [(kind, "/predict") for kind in (FORM, PARTS, "text/plain")]
    odd += [(FORM, "/send-feedback"), (CSV, "/invocations"), ("", "/invocations")]
    for file in sorted(Path("tests/corpus").iterdir()):
        body = file.read_bytes()
        yield from (ask("corpus", path, body) for path in POSTS.split())
        yield from (ask("corpus", path, body, kind) for kind, path in odd)


def ask_bodies(**headers):
    """Send correct and wrong names and options wherever a request has them."""
    for names in map(json.loads, NAMES.split()):
        table = [list(range(1, len(names) + 1))] * 2
        columns = [{**SD, "name": name, "data": [j, j]} for j, name in enumerate(names)]
        data, split = {"names": names, "ndarray": table}, {"columns": names, "data": table}
        yield ask("names", "/predict?scores=1", {"data": data}, **headers)
        yield ask("names", "/transform-input", {"data": data}, **headers)
        yield ask("names", f"{MODEL}/infer", {"inputs": columns}, **headers)
        yield ask("names", "/invocations?scores=1", {"dataframe_split": split}, **headers)
        text = "".join(",".join(map(str, line)) + "\n" for line in (names, *table))
        yield ask("names", "/invocations?scores=1", text, CSV, **headers)
    for query, path in product(QUERIES.split(), ("/predict", "/transform-input", "/invocations")):
        body = {"instances": ROWS} if path == "/invocations" else MESSAGE
        yield ask("options", f"{path}?{query}", body, **headers)
    for table in TABLES:
        yield ask("csv", "/invocations?scores=1", table, f"{CSV}; charset=utf-8", **headers)
    yield from (ask("messages", path, message, **headers) for message, path in TEMPLATES)


def ask_cells(**headers):
    for (form, path), cell in product(FORMS.items(), CELLS.split() + LONG):
        yield ask("cells", path, form.replace("@", cell), **headers)


def ask_messages():
    for message, path in TEMPLATES:
        yield from (ask("messages", path, body) for body in mutate(message))
    for body, path in product(SELDON, ("/predict", "/transform-input", "/aggregate")):
        yield ask("messages", path, body)


def ask_arrival():
    text, other = json.dumps(MESSAGE), json.dumps({"data": {"ndarray": [[3, 4]]}})
    part = "--cut\r\nContent-Disposition: form-data; {}\r\n\r\n{}\r\n"
    parts = {'name="data"': text[9:-1], 'name="meta"': '{"puid": "ü"}', "": "{}"}
    parts |= {'name="strData"; filename="a"': "é", 'name="binData"': "x", 'name="data"; x': "[NaN]"}
    bodies = [(urlencode({"json": text}), FORM), (f"a=1&json={quote(text)}&json=2", FORM)]
    bodies += [(f"json={form}", FORM) for form in ("", "1" + "&json=2" * 16, "[" * 9 + "]" * 9)]
    bodies += [(text, JSON), ("no parts", PARTS), ("--cut--\r\n", "multipart/form-data")]
    for chosen in (*parts, "name", "ta"):
        named = [part.format(name, value) for name, value in parts.items() if chosen in name]
        bodies.append((f"{''.join(named)}--cut--\r\n", PARTS))
    for path in ("/predict", "/transform-output", "/send-feedback"):
        for body, kind in bodies:
            yield ask("arrival", path, body, kind)
            yield ask("arrival", f"{path}?json={quote(other)}", body, kind)
        yield get("arrival", f"{path}?scores=1&json={quote(text)}")
        yield ask("arrival", f"{path}?json={quote(text)}&json=2", b"whatever", "text/plain")


def ask_packed():
    infer, bomb = json.dumps({"inputs": [TENSOR]}), gzip.compress(bytes(2**25), mtime=0)
    bodies = {"/predict": (JSON, json.dumps(MESSAGE)), "/v2/repository/index": (JSON, "{}")}
    bodies |= {f"{MODEL}/infer": ("", infer), "/invocations": (CSV, "mean,sd\n1,2\n60,40\n")}
    encodings = ("gzip", "GZIP", " deflate ", "br", "identity", "gzip, gzip", "")
    for (path, (kind, text)), name in product(bodies.items(), encodings):
        body = text.encode()
        packed, raw = gzip.compress(body, mtime=0), zlib.compress(body, wbits=-15)
        for sent in (packed, zlib.compress(body), raw, bomb, packed[:-1], packed * 2, body, b""):
            yield ask("packed", path, sent, kind, Content_Encoding=name)


def ask_tensors():
    path = f"{MODEL}/infer"
    for outputs, binary in product(OUTPUTS, (None, True)):
        more = {"outputs": outputs, "parameters": {"binary_data_output": binary}}
        yield ask("tensors", path, {"inputs": [TENSOR], **more})
    for inputs in ([SD], [SD, TENSOR], [MEAN, SD]):
        yield ask("tensors", path, {"inputs": inputs})
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (b"1", b"2e1", b"nan", b"x"))
    blobs = [(kind, struct.pack(f"<4{code}", 1, 0, 1, 100)) for kind, code in TYPES.items()]
    blobs += [("FP64", struct.pack("<4d", 1, 2, 3, float(text))) for text in ("nan", "inf")]
    blobs += [("BYTES", texts), ("BYTES", texts[:12] + texts[:12]), ("BYTES", texts[:-1])]
    for (kind, blob), cut in product(blobs, (0, 1)):
        for size in (len(blob) - cut, len(blob), -1, "8"):
            head = {"name": "x", "shape": [2, 2], "datatype": kind}
            head |= {"parameters": {"binary_data_size": size}}
            text = json.dumps({"inputs": [head]}).encode()
            length = {"Inference_Header_Content_Length": str(len(text))}
            yield ask("tensors", path, text + blob[: len(blob) - cut], **length)
    for length in ("", "x", "-1", "1e3", "999999", "9" * 5000, "2"):
        sent = {"Inference_Header_Content_Length": length}
        yield ask("tensors", path, {"inputs": [TENSOR]}, **sent)


def ask_feedback(**headers):
    yield ask("feedback", "/predict", {"meta": {"puid": "judged"}, **MESSAGE}, **headers)
    for body, path in product(FEEDBACK, ("/send-feedback", "/api/v1.0/feedback")):
        yield ask("feedback", path, body, **headers)
    judge = '{"response":@LAST@,"truth":{"data":{"ndarray":[0,0]}},"reward":1}'
    for path, body in (("/predict", MESSAGE), ("/transform-input", {"jsonData": ROWS})):
        yield ask("feedback", path, body, **headers)
        yield ask("feedback", "/send-feedback", judge, **headers)
    yield ask("feedback", f"{MODEL}/infer", {"id": "v2", "inputs": [TENSOR]}, **headers)
    truth = {"response": {"meta": {"puid": "v2"}}, "truth": {"data": {"ndarray": [0, 1]}}}
    yield ask("feedback", "/send-feedback", urlencode({"json": json.dumps(truth)}), FORM, **headers)


def ask_admin():
    bodies = ["", "{}", "[1]", "{", '{"parameters":{}}', '{"parameters":{"a":"x"}}', " " * 2**17]
    bodies += [f'{{"threshold":{number}}}' for number in (-0.05, "null", 0.05)]
    for body, route in product(bodies, ("load", "threshold", "unload")):
        yield ask("admin", f"{ADMIN}/{route}", body, X_Forwarded_For="203.0.113.9", **BOSS)
    yield ask("admin", "/v2/repository/models/other/load", "{}", **BOSS)
    for model in ("other", "wide", "broken", "other", "gaps"):
        yield {"do": "put", "model": model}
        yield ask("admin", f"{ADMIN}/load", X_Request_ID="mine", X_Forwarded_For="the boss", **BOSS)
        yield ask("admin", "/predict?scores=1", MESSAGE, **OWNER)


def ask_limits():
    for n_rows, n_columns in ((3, 3), (4, 2), (2, 4), (100, 2), (600, 2)):
        table = [[1] * n_columns] * n_rows
        tensor = {**TENSOR, "shape": [n_rows, n_columns], "data": table}
        yield ask("limits", "/predict", {"data": {"ndarray": table}})
        yield ask("limits", f"{MODEL}/infer", {"inputs": [tensor]})
        yield ask("limits", "/invocations", {"instances": table})


def steps():
    """Yield all steps: names of methods of `Player`, and their arguments."""
    for name in ("named", "gaps", "other", "wide"):
        more = {"other": " --label odd"}.get(name, "")
        words = "training.train --n_estimators 20 --dataset {work}/NAME.csv --save_path {work}/NAME"
        yield run(words.replace("NAME", name) + more, f"{name}/model.json")
    yield {"do": "keep_models"}
    small = {"ISOSERVE_RECORDS": "1500", "ISOSERVE_WINDOW": "10"}
    yield from serve_plain(small)
    locked = {"ISOSERVE_API_KEY": KEY, "ISOSERVE_ADMIN_TOKEN": TOKEN, "ISOSERVE_DRAIN_SECONDS": "9"}
    yield serve("locked", "gaps", **small, **locked)
    yield from ask_routes("GET", "OPTIONS")
    yield from ask_routes("GET", "POST", **OWNER)
    for part in (ask_keys(), ask_cells(**OWNER | BOSS), ask_feedback(**OWNER), ask_admin()):
        yield from part
    yield get("metrics", "/metrics", **OWNER)
    yield {"do": "tell_to_stop"}
    yield get("stopping", "/ready") | {"until": "is stopping"}
    yield from (get("stopping", path) for path in ("/live", "/ping", f"{MODEL}/ready", "/metadata"))
    yield ask("stopping", "/predict", MESSAGE, **OWNER)
    yield {"do": "stop"}
    yield from serve_bare()
    yield from (run(f"service {words} --help") for words in COMMANDS)
    yield from (run(words) for words in ("service --version", "service settings", "service odd"))
    yield from (run("service", **settings) for settings in WRONG)
    yield from (run(f"training.train {words}") for words in TRAININGS)
    yield from (run(f"service check {{work}}/{name}.pickle") for name in ("named/model", "none"))
    checks = {"ISOSERVE_REQUIRE_CARD": "1"}, {"ISOSERVE_MODEL_SHA256": "0" * 64}, {}
    yield from (run("service check {work}/served/bare/model.pickle", **more) for more in checks)


def serve_plain(small):
    """Yield the steps with a service without keys, and with one that continues its state."""
    yield serve("plain", "named", **small)
    yield from ask_routes("GET", "HEAD", "OPTIONS", "POST", "ODD")
    for asking in (ask_feedback, ask_headers, ask_bodies, ask_cells, ask_messages, ask_arrival,
                   ask_packed, ask_tensors, ask_limits, ask_corpus):  # fmt: skip
        yield from asking()
    yield ask("limits", "/predict?explain=999", {"data": {"ndarray": [[60, 40]] * 5001}})
    yield ask("limits", "/predict", {"data": {"ndarray": ROWS * 500}})  # enough to measure drift
    yield {"do": "wait", "seconds": 12}
    yield get("metrics", "/metrics")
    state = {"ISOSERVE_STATE_DIR": "{work}/served/plain/state"}
    state |= {"ISOSERVE_MODEL": "{work}/named/model.pickle"}
    for words in AFTERWARDS:
        file = next((name for name in ("rows.csv", "said.csv") if name in words), "")
        yield run(f"service {words}", file, **state)
    yield {"do": "stop"}
    yield {"do": "keep_state"}
    yield run("service counts reset", **state)
    yield serve("kept", "named", **small, ISOSERVE_WATCH="1")
    yield get("kept", "/health/status")
    yield get("kept", "/metrics") | {"until": "isoserve_drift_psi{"}
    yield from ask_feedback()
    yield {"do": "put", "model": "other"}
    yield get("kept", "/metrics") | {"until": "isoserve_model_swaps_total 1.0"}
    yield {"do": "stop"}


def serve_bare():
    """Yield the steps with a model without a card, narrow limits and another model name."""
    chosen = {"MODEL_NAME": "clf", "NAMES": "position", "THRESHOLD": "0.05", "RECORDS": "0"}
    chosen |= {"MAX_BODY_BYTES": "1000", "MAX_ROWS": "3", "MAX_COLUMNS": "3", "MAX_DEPTH": "5"}
    chosen |= {"ANSWER_METRICS": "false", "ACCESS_LOG": "1", "ODD": "1"}
    seldon = {"PREDICTIVE_UNIT_IMAGE": "reg/if:0.1", "PREDICTOR_LABELS": '{"version": "v1"}'}
    ours = {f"ISOSERVE_{name}": value for name, value in chosen.items()}
    yield serve("bare", "named", False, **ours, **seldon)
    for step in (*ask_bodies(), *ask_feedback(), *ask_packed(), *ask_limits()):
        yield step | {"path": step["path"].replace("isoserve", "clf")}
    yield from (get("routes", path) for path in ("/metrics", "/openapi.json", "/v2/models/clf"))
    yield {"do": "stop"}
