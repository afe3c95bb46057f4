"""One table of numbers, text, dates, flags, gaps and ids through every protocol and the record.

The scores of raw rows equal those that plain scikit-learn gives the encoded matrix, bit for bit.
"""

import csv
import io
import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.cells import MISSING
from service.errors import CannotTrain
from service.model.card import Card
from service.model.columns import Columns
from service.model.file import load_model
from service.protocols.mlflow import decode_request
from service.rows import Limits, RawTable
from service.serving.detector import Detector
from service.settings import Settings
from service.state.records import as_table, open_records
from tests.support.mixed import CITIES, NAMES, SHOPS, make_rows, train
from training.export import describe, save_model
from training.forest import fit_forest
from training.tables import from_file


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder with the table and a model of it."""
    return train(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def forest(mixed):
    return pickle.loads((mixed / "model.pickle").read_bytes())


@pytest.fixture(scope="module")
def card(mixed):
    return Card.from_json((mixed / "model.json").read_text())


@pytest.fixture(scope="module")
def client(mixed):
    state = Path(tempfile.mkdtemp(dir=mixed))
    made = Settings(model=mixed / "model.pickle", state_dir=state, records=2_000)
    client = create_app(made).test_client()
    client.state = state
    return client


def test_the_card_says_what_became_of_each_column(card):
    kinds = {column.name: column.kind for column in [*card.columns, *card.left_out]}
    assert kinds == {
        "amount": "number", "merchant": "category", "city": "text", "when": "date",
        "is_new": "flag", "visits": "number", "id": "id", "note": "free text",
    }  # fmt: skip
    assert card.id == "id"
    assert {c.name: c.missing for c in card.columns if c.missing} == {"visits": 30}
    assert len(card.golden.rows[0]) == 6
    assert len(card.golden.encoded[0]) == len(Columns.from_card(card).features)


def test_the_examples_of_the_documentation_are_raw_rows_that_are_answered(client, card):
    found = client.get("/openapi.json").json
    name = client.get("/metadata").json["name"]
    golden = sorted(zip(card.golden.scores, card.golden.rows, strict=True), key=lambda one: one[0])
    for path, kind in (
        ("/predict", "application/json"),
        ("/v2/models/{model}/infer", "application/json"),
        ("/invocations", "application/json"),
        ("/invocations", "text/csv"),
    ):
        schema = found["paths"][path]["post"]["requestBody"]["content"][kind]["schema"]
        if "$ref" in schema:
            schema = found["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        example = schema["examples"][0]
        text = example if isinstance(example, str) else json.dumps(example)
        assert all(row[1][1] in text for row in (golden[0], golden[-1])), path  # the merchants
        assert "'" not in text
        where = path.replace("{model}", name)
        answer = client.post(where, data=text, content_type=kind)
        assert answer.status_code == 200, (path, answer.text)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
rows = st.fixed_dictionaries(
    {
        "amount": st.floats(-1e38, 1e38) | st.integers(-(2**53), 2**53),
        "merchant": (st.sampled_from([*SHOPS, "casino"]) | texts).filter(
            lambda text: text.strip() not in MISSING
        ),
        "city": (st.sampled_from(CITIES) | texts).filter(lambda text: text.strip() not in MISSING),
        "when": st.datetimes().map(str),
        "is_new": st.sampled_from(["yes", "no", "True", "FALSE", "1", "0"]),
        "visits": st.integers(0, 9) | st.none(),
    }
)


def ask_seldon(client, table):
    names = NAMES[::-1]
    data = {"names": names, "ndarray": [[row[name] for name in names] for row in table]}
    return client.post("/predict?scores=1", json={"data": data}).get_json()


def ask_json_data(client, table):
    return client.post("/predict?scores=1", json={"jsonData": table}).get_json()


def ask_v2(client, table):
    datatypes = {"amount": "FP64", "visits": "FP64"}
    inputs = [
        {"name": name, "shape": [len(table)], "datatype": datatypes.get(name, "BYTES"),
         "data": [row[name] for row in table]}
        for name in NAMES[::-1]
    ]  # fmt: skip
    return client.post("/v2/models/isoserve/infer", json={"inputs": inputs}).get_json()


def ask_mlflow(client, table, body=None, content_type="application/json"):
    body = body or json.dumps({"dataframe_records": table})
    return client.post("/invocations?scores=1", data=body, content_type=content_type).get_json()


def ask_csv(client, table):
    text = io.StringIO()
    writer = csv.DictWriter(text, NAMES)
    writer.writeheader()
    writer.writerows(table)
    return ask_mlflow(client, table, text.getvalue().encode(), "text/csv")


@settings(deadline=None, max_examples=30)
@given(st.lists(rows, min_size=1, max_size=4))
def test_raw_rows_get_scikit_learns_scores_of_the_encoded_matrix_in_every_protocol(
    client, card, forest, table
):
    cells = [[row[name] for name in NAMES] for row in table]
    encoded = Columns.from_card(card).encode(RawTable(cells, tuple(NAMES))).values
    expected = forest.decision_function(encoded).tolist()
    assert ask_seldon(client, table)["meta"]["tags"]["anomaly-scores"] == expected
    assert ask_json_data(client, table)["meta"]["tags"]["anomaly-scores"] == expected
    outputs = {output["name"]: output["data"] for output in ask_v2(client, table)["outputs"]}
    assert outputs["decision_function"] == expected
    assert ask_mlflow(client, table)["scores"] == expected
    if all(row["merchant"] and "\0" not in row["merchant"] + row["city"] for row in table):
        assert ask_csv(client, table)["scores"] == expected


def test_training_encodes_rows_as_requests_do(mixed, card):
    dataset = from_file(mixed / "my.csv")
    with (mixed / "my.csv").open(newline="") as file:
        raw = [[row[name] for name in NAMES] for row in csv.DictReader(file)]
    encoded = Columns.from_card(card).encode(RawTable(raw)).values
    np.testing.assert_array_equal(encoded, dataset.X)


def test_v2_returns_ids_by_default_and_where_they_are_asked_for(client):
    table = [{**row, "id": f"ü{i}"} for i, row in enumerate(make_rows(2))]
    inputs = [
        {"name": name, "shape": [2], "datatype": "BYTES", "data": [str(r[name]) for r in table]}
        for name in [*NAMES, "id"]
    ]

    def infer(*outputs):
        sent = {"inputs": inputs, "outputs": list(outputs)}
        return client.post("/v2/models/isoserve/infer", json=sent)

    ids = {"name": "ids", "datatype": "BYTES", "shape": [2], "parameters": {"content_type": "str"}}
    assert infer().get_json()["outputs"][-1] == ids | {"data": ["ü0", "ü1"]}
    assert infer({"name": "ids"}).get_json()["outputs"] == [ids | {"data": ["ü0", "ü1"]}]
    assert [one["name"] for one in infer({"name": "predict"}).get_json()["outputs"]] == ["predict"]
    answer = infer({"name": "ids", "parameters": {"binary_data": True}})
    length = int(answer.headers["Inference-Header-Content-Length"])
    [output] = json.loads(answer.data[:length])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(answer.data) - length
    assert answer.data[length:] == b"\3\0\0\0\xc3\xbc0\3\0\0\0\xc3\xbc1"
    del inputs[-1]
    assert infer({"name": "ids"}).get_json()["outputs"] == []
    assert "ids" in [one["name"] for one in client.get("/v2/models/isoserve").json["outputs"]]


def test_ids_come_back_in_every_protocol(client):
    table = [{name: row[name] for name in ["note", *NAMES, "id"]} for row in make_rows(2)]
    assert ask_json_data(client, table)["meta"]["tags"]["ids"] == ["A00000", "A00001"]
    assert ask_mlflow(client, table)["ids"] == ["A00000", "A00001"]
    inputs = [
        {"name": name, "shape": [2], "datatype": "BYTES", "data": [str(r[name]) for r in table]}
        for name in [*NAMES, "id"]
    ]
    answer = client.post("/v2/models/isoserve/infer", json={"inputs": inputs}).get_json()
    ids = {"name": "ids", "datatype": "BYTES", "shape": [2], "data": ["A00000", "A00001"]}
    assert answer["outputs"][-1] == ids | {"parameters": {"content_type": "str"}}


def test_metadata_tells_the_true_datatypes(client):
    found = client.get("/v2/models/isoserve").get_json()["inputs"]
    assert [one["datatype"] for one in found] == [
        "FP64",
        "BYTES",
        "BYTES",
        "BYTES",
        "BOOL",
        "INT64",
    ]


def test_reasons_records_counts_and_feedback_are_in_the_users_columns(client):
    row = [5000, "casino", "nowhere", "2026-01-03 03:25:00", "no", None]
    puid = "mixed-1"
    message = {"meta": {"puid": puid}, "data": {"names": NAMES, "ndarray": [row]}}
    answer = client.post("/predict?explain=6", json=message).get_json()
    [explained] = answer["meta"]["tags"]["explanations"]
    values = {feature["name"]: feature["value"] for feature in explained["features"]}
    assert values == dict(zip(NAMES, [5000, "casino", "nowhere", row[3], 0, None], strict=True))
    table = as_table(open_records(client.state))
    assert {name: table[name][-1] for name in ("amount", "merchant", "city", "when", "id")} == {
        "amount": 5000, "merchant": "casino", "city": "nowhere", "when": row[3], "id": None,
    }  # fmt: skip
    metrics = client.get("/metrics").get_data(as_text=True)
    for column, kind in (("amount", "out_of_range"), ("city", "unknown"), ("visits", "missing")):
        assert f'isoserve_cells_total{{column="{column}",kind="{kind}"}}' in metrics
    feedback = {"response": {"meta": {"puid": puid}}, "truth": {"data": {"ndarray": [1]}}}
    assert client.post("/send-feedback", json=feedback).status_code == 200
    carried = {
        "request": {"data": {"names": NAMES, "ndarray": [row]}},
        "truth": {"data": {"ndarray": [1]}},
    }
    assert client.post("/send-feedback", json=carried).status_code == 200
    carried["request"]["data"]["ndarray"][0][3] = "never"
    refused = client.post("/send-feedback", json=carried)
    assert refused.status_code == 400
    assert "the request that the feedback carries: row 0, column 3 ('when')" in refused.text


def test_transform_input_returns_rows_of_text_as_they_came(client):
    row = [1, "cafe", "city 1", "2026-01-03 03:25:00", "no", 2]
    answer = client.post("/transform-input", json={"jsonData": [row]}).get_json()
    assert answer["data"] == {"names": [], "ndarray": [row]}


def test_contributions_are_one_for_each_column(client, mixed, forest, card):
    rows = Columns.from_card(card).encode(RawTable(card.golden.rows))
    detector = Detector(load_model(mixed / "model.pickle"))
    shares = detector.explain(rows)
    scorer = detector.model.scorer
    assert shares.shape == (len(rows), 6)
    assert shares.sum(axis=1) == pytest.approx(scorer.depths(rows.values) - scorer.mean_depth)


def test_drift_of_text_is_measured_over_its_values(mixed):
    detector = Detector(load_model(mixed / "model.pickle"))
    usual = [[row[name] for name in NAMES] for row in make_rows(1500, seed=4)]
    columns = detector.columns

    def measure(cells):
        rows = columns.encode(RawTable(cells))
        found = {
            "merchant": rows.cells["texts"][:, 0],
            "city": rows.cells["texts"][:, 1],
            "amount": rows.cells["values"][:, 0],
        }
        return detector.baseline.measure(lambda *_: (found, detector.score(rows).scores)).features

    drift = measure(usual)
    assert list(drift) == ["amount", "merchant", "city"]
    assert max(drift.values()) < 0.1
    moved = measure([[row[0], "casino", "Rome", *row[3:]] for row in usual])
    assert moved["merchant"] > 1
    assert moved["city"] > 0.5


cells = st.one_of(
    st.sampled_from(["", "NA", "?", "yes", "no", "TRUE", "0", "1", "1.5", "1,234.5", "-3", "1e3"]),
    st.sampled_from(["Bonn", "a b", "x;y", "017", "2026-01-02", "2026-01-02 03:04", "3.2.2026"]),
    st.integers(-999, 999).map(str),
    st.floats(-1e6, 1e6).map(repr),
)
columns = st.one_of(
    st.lists(cells, min_size=12, max_size=12),
    st.lists(st.sampled_from(["Bonn", "Ulm", ""]), min_size=12, max_size=12),
    st.lists(st.integers(-99, 99).map(str), min_size=12, max_size=12),
    st.lists(st.floats(-99, 99).map(lambda x: repr(x).replace(".", ",")), min_size=12, max_size=12),
    st.lists(st.datetimes().map(str), min_size=12, max_size=12),
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(columns, min_size=1, max_size=4),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
)
def test_what_trains_is_answered(tmp_path_factory, table, separator, encoding):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    writer.writerow([f" c{j}" for j in range(len(table))])
    writer.writerows(zip(*table, strict=True))
    body = text.getvalue().encode(encoding)
    folder = tmp_path_factory.mktemp("trains")
    (folder / "my.csv").write_bytes(body)
    try:
        dataset = from_file(folder / "my.csv")
    except CannotTrain:
        return
    fitted = fit_forest(dataset.X, n_estimators=1)
    card = Card.from_json(describe(fitted, dataset).to_json())
    rows = Columns.from_card(card).encode(decode_request(body, "text/csv", Limits()))
    np.testing.assert_array_equal(rows.values, dataset.X)
    golden = Columns.from_card(card).encode(RawTable(card.golden.rows)).values
    expected = card.golden.rows if card.golden.encoded is None else card.golden.encoded
    np.testing.assert_array_equal(golden, np.array(expected, np.float64))


@pytest.mark.parametrize("values", [5, 40], ids=["category", "text"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_codes_of_digits_are_served_as_they_are_written(tmp_path, values, kind):
    chance = np.random.default_rng(1)
    codes = [f"{code:05d}" for code in chance.integers(100, 100 + values, 300)]
    table = pd.DataFrame({"zip": codes, "amount": chance.normal(size=300)})
    path = tmp_path / f"my.{kind}"
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    dataset = from_file(path)
    assert dataset.columns[0].kind == ("category" if values == 5 else "text")
    assert dataset.cells(7)[0] == codes[7]
    forest = fit_forest(dataset.X, n_estimators=5)
    saved = save_model(tmp_path / "m", forest, describe(forest, dataset))
    detector = Detector(load_model(saved, require_card=True))  # which encodes the golden rows
    rows = detector.columns.encode(RawTable([dataset.cells(i) for i in range(300)]))
    assert detector.score(rows).scores.tolist() == forest.decision_function(dataset.X).tolist()


def test_whole_numbers_chosen_as_categories_are_served_as_numbers_and_as_texts(tmp_path):
    chance = np.random.default_rng(1)
    table = pd.DataFrame({"shop": chance.integers(1, 9, 300), "x": chance.normal(size=300)})
    for path in (tmp_path / "my.csv", tmp_path / "my.parquet"):
        table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
        dataset = from_file(path, columns="shop:category,x")
        columns = Columns.from_card(describe(fit_forest(dataset.X, n_estimators=5), dataset))
        for change in (int, float, lambda cell: str(int(cell))):
            sent = [[change(cells[0]), cells[1]] for cells in map(dataset.cells, range(300))]
            np.testing.assert_array_equal(columns.encode(RawTable(sent)).values, dataset.X)
