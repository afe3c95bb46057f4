import gzip
import json
import re
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin

import pytest

from service.web.openapi import document as document_module
from service.web.page import FOLDER
from tests.support.cards import number

PREFIX = "#/components/schemas/"
PARTS = "multipart/form-data"
DATA = Path(document_module.__file__).parent


@pytest.fixture
def client(make_client):
    """A service with every route, also the admin routes."""
    return make_client(admin_token="x" * 16)


def document(client):
    return client.get("/openapi.json").json


def references(value):
    """Return every $ref below a value."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for item in value.values() for ref in references(item)]
    if isinstance(value, list):
        return [ref for item in value for ref in references(item)]
    return []


def test_exactly_the_existing_routes_are_described(client):
    rules = client.application.url_map.iter_rules()
    routes = {
        (re.sub("<(.*?)>", r"{\1}", rule.rule), method.lower())
        for rule in rules
        if not rule.rule.startswith("/console")  # for people
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    paths = document(client)["paths"].items()
    assert {(path, method) for path, item in paths for method in item} == routes


def test_admin_routes_are_described_only_if_they_exist(make_client):
    assert not any("load" in path for path in document(make_client())["paths"])


def operations(client):
    items = document(client)["paths"].items()
    return {(path, method): one for path, item in items for method, one in item.items()}


def test_a_key_is_needed_if_one_is_set_except_for_health(make_client):
    locked = make_client(api_key="x" * 16, admin_token="y" * 16)
    found = locked.get("/openapi.json", headers={"X-API-Key": "x" * 16}).json
    assert found["security"] == [{"key": []}, {"bearer": []}]
    values = {"name": "isoserve", "model": "isoserve", "version": found["info"]["version"]}
    for path, item in found["paths"].items():
        for method, operation in item.items():
            where = re.sub("{(.*?)}", lambda name: values[name[1]], path)
            answer = locked.open(where, method=method.upper())
            documented = "401" in operation["responses"]
            assert documented == (answer.status_code == HTTPStatus.UNAUTHORIZED), path
            assert documented == (operation.get("security") != []), path
    assert found["components"]["securitySchemes"].keys() == {"key", "bearer", "admin"}


def test_a_page_asks_for_no_key_that_no_route_needs(make_client):
    found = document(make_client())
    assert (found["security"], "securitySchemes" in found["components"]) == ([], False)
    assert "API key" not in found["info"]["description"]


def send_example(client, path, method, content):
    """Send a route's example of each type of content; return the answers by type."""
    where = path.replace("{model}", "isoserve").replace("{version}", version_of(client))
    answers = {}
    for kind, body in content.items():
        schema = body["schema"]
        if "$ref" in schema:
            schema = document(client)["components"]["schemas"][schema["$ref"].removeprefix(PREFIX)]
        if kind == "application/x-www-form-urlencoded":
            fields = {key: one["examples"][0] for key, one in schema["properties"].items()
                      if "examples" in one}  # fmt: skip
            if fields:
                answers[kind] = client.open(where, method=method, data=fields)
        elif "examples" in schema:
            sent = schema["examples"][0]
            text = sent if isinstance(sent, str) else json.dumps(sent)
            answers[kind] = client.open(where, method=method, data=text, content_type=kind)
    return answers


def version_of(client):
    return client.get("/metadata").json["versions"][0]


@pytest.mark.parametrize("known", [True, False], ids=["with a card", "without a card"])
def test_examples_are_golden_rows_and_are_answered(make_client, write_card, known):
    if known:
        write_card()
    client, seen = make_client(), {}
    for (path, method), operation in operations(client).items():
        content = operation.get("requestBody", {}).get("content", {})
        for kind, answer in send_example(client, path, method, content).items():
            assert answer.status_code == HTTPStatus.OK, (path, answer.text)
            seen[path, kind] = answer.json
    labels = [0, 1] if known else [0]
    assert seen["/predict", "application/json"]["data"]["ndarray"] == labels
    assert seen["/predict", "application/x-www-form-urlencoded"]["data"]["ndarray"] == labels
    assert seen["/invocations", "application/json"]["predictions"] == labels
    assert seen["/invocations", "text/csv"]["predictions"] == labels
    infer = seen["/v2/models/{model}/infer", "application/json"]
    assert infer["outputs"][0]["data"] == labels
    assert ("/send-feedback", "application/json") in seen


def test_a_page_begins_with_predictions_and_says_so(client):
    found = document(client)
    assert found["tags"][0]["name"] == "Begin here"
    first = [path for (path, _), one in operations(client).items() if "Begin here" in one["tags"]]
    assert first == ["/predict", "/v2/models/{model}/infer", "/invocations", "/send-feedback"]
    assert found["info"]["description"].startswith("Begin with **POST /predict**")
    seldon = [path for (path, _), one in operations(client).items() if "Seldon v1" in one["tags"]]
    assert {"/route", "/aggregate"} == set(seldon[-4:])
    named = {tag["name"] for tag in found["tags"]}
    assert {tag for one in operations(client).values() for tag in one["tags"]} == named


def test_readiness_is_described_with_the_status_while_stopping(client):
    client.application.extensions["isoserve"].admission.stopping.set()
    for (path, method), operation in operations(client).items():
        where = path.replace("{model}", "isoserve")
        if method == "get" and "{" not in where:
            stopping = client.get(where).status_code == HTTPStatus.SERVICE_UNAVAILABLE
            assert ("503" in operation["responses"]) >= stopping, path


def test_multipart_bodies_have_the_parts_of_their_message(client):
    message = {"data": '{"ndarray": [[1, 2]]}', "meta": '{"puid": "p"}'}
    sent = {
        "Message": {**message, "jsonData": "[[1, 2]]"},
        "Echo": {**message, "jsonData": "1", "strData": "x", "binData": "x"},
        "Feedback": {"request": "{}", "response": "{}", "reward": "0.5", "truth": "{}"},
    }
    seen = set()
    for (path, method), operation in operations(client).items():
        content = operation.get("requestBody", {}).get("content", {})
        if PARTS in content:
            name = content["application/json"]["schema"]["$ref"].removeprefix(PREFIX)
            documented = content[PARTS]["schema"]["properties"]
            assert documented.keys() == sent[name].keys(), path
            answer = client.open(path, method=method, data=sent[name], content_type=PARTS)
            assert answer.status_code == HTTPStatus.OK, path
            seen.add(name)
    assert seen == sent.keys()


def test_special_headers_are_described_with_their_responses(make_client):
    client = make_client(api_key="x" * 16)
    key, infer = {"X-API-Key": "x" * 16}, "/v2/models/isoserve/infer"
    found = client.get("/openapi.json", headers=key).json
    documented = found["paths"]["/v2/models/{model}/infer"]["post"]["responses"]
    table = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}
    asked = {"inputs": [table], "parameters": {"binary_data_output": True}}
    answers = {
        "200": client.post(infer, headers=key, json=asked),
        "401": client.post(infer),
    }
    client.application.extensions["isoserve"].admission.stopping.set()
    answers["503"] = client.get("/ready")
    own = ("Inference-Header-Content-Length", "WWW-Authenticate", "Retry-After")
    for status, answer in answers.items():
        assert answer.status_code == int(status)
        assert {name for name in own if name in answer.headers} == documented[status][
            "headers"
        ].keys() & own
        assert {name for name in own if name in answer.headers}
    referred = {ref for ref in references(found) if "/headers/" in ref}
    assert {ref.rpartition("/")[2] for ref in referred} == found["components"]["headers"].keys()


def test_the_document_is_valid_and_each_schema_is_used(client):
    import schemathesis  # takes seconds

    found = document(client)
    assert found["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(found).validate()
    schemas = {PREFIX + name for name in found["components"]["schemas"]}
    assert {ref for ref in references(found) if ref.startswith(PREFIX)} == schemas


def test_each_component_has_one_name_and_is_used():
    texts = [(DATA / f"{name}.json").read_text() for name in ("operations", "schemas")]
    parts = [name for text in texts for name in json.loads(text)["parts"]]
    assert len(set(parts)) == len(parts)
    assert set(parts) <= set(re.findall('"\\$fill": "(.*?)"', "".join(texts)))


def test_operation_ids_are_unique(client):
    items = document(client)["paths"].values()
    ids = [operation["operationId"] for item in items for operation in item.values()]
    assert len(set(ids)) == len(ids)


def test_seldon_json_is_the_same_document(client):
    assert client.get("/seldon.json").data == client.get("/openapi.json").data


def test_the_row_schema_has_the_models_number_of_columns(client):
    rows = document(client)["components"]["schemas"]["Message"]["anyOf"][1]["properties"]
    row = rows["jsonData"]["anyOf"][0]["items"]
    assert (row["minItems"], row["maxItems"]) == (2, 2)


def test_the_page_loads_nothing_from_other_sites(client):
    page = client.get("/docs")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "//" not in page.text
    for name in re.findall('(?:src|href)="(docs/[^"]+)"', page.text):
        assert client.get(f"/{name}").status_code == 200
    assert client.get("/docs/..%2Froutes.py").status_code == 404


def test_the_files_of_the_page_are_compressed_and_cached(client):
    packed = client.get("/docs/swagger-ui.css", headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    plain = client.get("/docs/swagger-ui.css", headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.data) == plain.data
    for path, answer in (("/docs/swagger-ui.css", plain), ("/docs", client.get("/docs"))):
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Vary"] == "Accept-Encoding"
        again = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (HTTPStatus.NOT_MODIFIED, b"")
    assert packed.headers["ETag"] != plain.headers["ETag"]


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*[LN][IO][CT]*")), ids=lambda file: file.name)
def test_the_licences_of_the_page_are_served(client, file):
    answer = client.get(f"/docs/{file.name}")
    assert answer.data == file.read_bytes()


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def test_the_start_page_leads_a_browser_on(client):
    page = client.get("/", headers={"Accept": BROWSER})
    assert (page.status_code, page.mimetype) == (HTTPStatus.OK, "text/html")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    links = re.findall('<a href="([^"]+)"', page.text)
    assert links[:2] == ["docs", "console"]
    for link in links:
        answer = client.get(urljoin("/", link), follow_redirects=True)  # the console has a login
        assert answer.status_code == HTTPStatus.OK
    assert "//" not in page.text
    assert "f0, f1" in page.text


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/html"])
def test_the_start_page_is_json_for_a_program(client, accept):
    answer = client.get("/", headers={"Accept": accept} if accept else {})
    assert answer.headers["Vary"] == "Accept"
    assert answer.json["model"]["columns"] == ["f0", "f1"]
    rules = {rule.rule for rule in client.application.url_map.iter_rules()}
    infer = "/v2/models/isoserve/infer"
    assert {*answer.json["predict"]} == {"/predict", infer, "/invocations"}
    assert {answer.json[name] for name in ("docs", "openapi", "metrics", "ready")} <= rules


def test_the_start_page_escapes_names(make_client, write_card):
    write_card(columns=[number("<b>"), number("sd")])
    page = make_client(model_name="<i>").get("/", headers={"Accept": "text/html"}).text
    assert ("&lt;b&gt;, sd" in page, "&lt;i&gt;" in page) == (True, True)
    assert not re.search("<[bi]>", page)


def test_the_start_page_needs_the_key_if_there_is_one(make_client):
    assert make_client(api_key="x" * 16).get("/").status_code == HTTPStatus.UNAUTHORIZED


def test_the_page_with_a_slash_redirects_to_the_page(client):
    asked = client.get("/docs/")
    assert asked.status_code == HTTPStatus.PERMANENT_REDIRECT
    assert urljoin("/before/docs/", asked.headers["Location"]) == "/before/docs"
