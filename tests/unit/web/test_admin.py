"""The admin routes: who may use them, and their responses."""

import json

import pytest

TOKEN = "0123456789abcdef"
URL = "/v2/repository/models/isoserve"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
ROUTES = ["load", "unload", "threshold"]


@pytest.fixture
def admin(make_client):
    return make_client(admin_token=TOKEN)


@pytest.mark.parametrize("route", ROUTES)
def test_without_an_admin_token_there_are_no_admin_routes(client, route):
    assert client.post(f"{URL}/{route}", headers=ADMIN).status_code == 404


@pytest.mark.parametrize(
    "header",
    [None, "", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xff", "Basic x"],
)
@pytest.mark.parametrize("route", ROUTES)
def test_a_request_without_the_token_gets_401(admin, route, header):
    headers = {} if header is None else {"Authorization": header}
    answer = admin.post(f"{URL}/{route}", headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert list(answer.json) == ["error"]
    assert TOKEN not in answer.text


def test_the_token_may_be_in_a_file(make_client, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    client = make_client(admin_token_file=tmp_path / "token")
    assert client.post(f"{URL}/load", headers=ADMIN).status_code == 200


@pytest.mark.parametrize(
    ("route", "body", "status", "words"),
    [
        ("unload", None, 409, "does not unload"),
        ("load", b"[1]", 400, "is not a JSON object"),
        ("load", b"{", 400, "JSON"),
        ("load", b'{"parameters": {"config": "x"}}', 400, "load takes no parameters"),
        ("load", b" " * 2**17, 413, "larger than 65,536 bytes"),
        ("threshold", None, 400, 'send {"threshold": -0.05}'),
        ("threshold", b'{"threshold": "x"}', 400, 'send {"threshold": -0.05}'),
        ("threshold", b'{"threshold": true}', 400, 'send {"threshold": -0.05}'),
        ("threshold", b'{"threshold": NaN}', 400, 'send {"threshold": -0.05}'),
        ("threshold", b'{"threshold": 1e999}', 400, "JSON"),
        ("threshold", b'{"share": "1%"}', 400, '{"share": 0.005}'),
        ("threshold", b'{"share": 0.01, "threshold": 0}', 400, '{"share": 0.005}'),
        ("threshold", b'{"threshold": 0, "model_version": 7}', 400, '{"share": 0.005}'),
        ("threshold", b'{"share": 0.01}', 400, "has no p-values (it has no card)"),
    ],
)
def test_an_impossible_change_is_refused(admin, route, body, status, words):
    answer = admin.post(f"{URL}/{route}", data=body, headers=ADMIN)
    assert (answer.status_code, list(answer.json)) == (status, ["error"])
    assert words in answer.json["error"]


def test_a_request_for_another_model_gets_404(admin):
    answer = admin.post("/v2/repository/models/other/load", headers=ADMIN)
    assert answer.status_code == 404
    assert answer.json["error"] == "there is no model 'other'; this one is 'isoserve'"


def test_load_accepts_the_request_of_tritonclient(admin):
    for body in (b"{}", b'{"parameters":{}}', b""):
        answer = admin.post(f"{URL}/load", data=body, headers=ADMIN)
        assert (answer.status_code, answer.json["changed"]) == (200, False)


@pytest.mark.parametrize(
    ("forwarded", "caller"),
    [
        ("203.0.113.9", "127.0.0.1 for 203.0.113.9 as it says"),
        ("2001:db8::1, 10.0.0.1", "127.0.0.1 for 2001:db8::1, 10.0.0.1 as it says"),
        ("the boss himself", "127.0.0.1"),
        ("1" * 101, "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_the_audit_log_has_the_callers_and_the_forwarded_address(admin, folder, forwarded, caller):
    headers = ADMIN | {"X-Forwarded-For": forwarded, "X-Request-ID": "mine"}
    assert (
        admin.post(f"{URL}/threshold", json={"threshold": 0.1}, headers=headers).status_code == 200
    )
    row = json.loads(next(folder.glob("*/audit.jsonl")).read_text())
    assert row["who"] == f"{caller}, request mine"
