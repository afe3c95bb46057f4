"""The command `score`: files, folders, streams, bad rows, and what is left when it fails."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from service.app import create_app
from service.bulk import job
from service.settings import Settings
from tests.support.mixed import NAMES, make_rows


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Cut tables into many batches, so that a small one crosses several."""
    monkeypatch.setattr(job, "ROWS", 64)


@pytest.fixture
def table(mixed):
    """The rows that are scored, with their cells as the file has them."""
    return pd.read_csv(mixed / "my.csv")


@pytest.fixture
def expected(mixed, detector):
    """The scores of the rows of `my.csv`."""
    from service.protocols.mlflow import decode_request
    from service.rows import Limits

    body = (mixed / "my.csv").read_bytes()
    return detector.detect(decode_request(body, "text/csv", Limits())).scores


def write_as(table, path):
    {".csv": lambda: table.to_csv(path, index=False), ".parquet": lambda: table.to_parquet(path),
     ".arrow": lambda: table.to_feather(path)}[path.suffix]()  # fmt: skip
    return path


def read(path):
    kinds = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".arrow": pd.read_feather}
    return kinds[path.suffix](path)


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_a_file_of_each_kind_gets_the_scores_of_the_service_in_its_order(
    score, tmp_path, table, expected, kind
):
    path = write_as(table, tmp_path / f"my.{kind}")
    code, said = score(path, "-o", f"out.{kind}")
    assert (code, said.startswith("600 rows in ")) == (0, True)
    found = read(tmp_path / f"out.{kind}")
    assert found.columns.tolist() == [*table.columns, "score", "outlier"]
    assert np.array_equal(found["score"], expected)
    assert found["outlier"].tolist() == (expected < 0).astype(int).tolist()
    assert found["id"].tolist() == table["id"].tolist()


def test_scores_and_reasons_are_those_of_a_request(score, mixed, tmp_path, table):
    assert score(mixed / "my.csv", "-o", "out.csv", "--explain", 2, "--threshold", -0.02)[0] == 0
    found = read(tmp_path / "out.csv")
    assert names(tmp_path) == ["out.csv"]  # no state: nothing is counted or recorded
    settings = Settings(
        model=mixed / "model.pickle", state_dir=tmp_path / "state", threshold=-0.02, records=1
    )
    client = create_app(settings).test_client()
    rows = [[row[name] if row[name] != "" else None for name in NAMES] for row in make_rows(600)]
    body = {"data": {"names": NAMES, "ndarray": rows}}
    tags = client.post("/predict?scores=1&explain=2", json=body).json["meta"]["tags"]
    assert found["score"].tolist() == tags["anomaly-scores"]
    flagged = found[found["outlier"] == 1]
    assert flagged.index.tolist() == [one["row"] for one in tags["explanations"]]
    for k in (1, 2):
        reasons = [one["features"][k - 1] for one in tags["explanations"]]
        assert flagged[f"reason_{k}"].tolist() == [one["name"] for one in reasons]
        assert flagged[f"contribution_{k}"].tolist() == [one["contribution"] for one in reasons]
    assert found[found["outlier"] == 0]["reason_1"].isna().all()


def test_the_number_of_threads_changes_nothing(score, mixed, tmp_path):
    for threads in (1, 3):
        score(mixed / "my.csv", "-o", f"{threads}.parquet", "--threads", threads)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "3.parquet").read_bytes()


def test_columns_are_chosen_and_inliers_left_out(score, mixed, tmp_path, expected):
    score(mixed / "my.csv", "-o", "out.csv", "--keep", "note, id", "--only-outliers")
    found = read(tmp_path / "out.csv")
    assert found.columns.tolist() == ["note", "id", "score", "outlier"]
    assert found["score"].tolist() == expected[expected < 0].tolist()
    score(mixed / "my.csv", "-o", "none.csv", "--keep", "")
    assert read(tmp_path / "none.csv").columns.tolist() == ["score", "outlier"]


def test_columns_may_come_in_any_order_with_others_and_text_stays_as_it_is(score, table, tmp_path):
    table.insert(0, "extra", [f'="{i}", x' for i in range(len(table))])
    table[table.columns[::-1]].to_csv(tmp_path / "odd.csv", index=False, sep=";")
    assert score("odd.csv", "-o", "out.csv")[0] == 0
    found = read(tmp_path / "out.csv")
    assert found["extra"].tolist() == table["extra"].tolist()
    assert found.columns[0] == "note"


def test_standard_input_and_output_pass_a_table_on(score, mixed, expected):
    from typer.testing import CliRunner

    from service.__main__ import cli

    body = (mixed / "my.csv").read_bytes()
    found = CliRunner().invoke(cli, ["score", "-", "-o", "-"], input=body)
    assert pd.read_csv(io.StringIO(found.stdout))["score"].tolist() == expected.tolist()
    assert found.stderr.startswith("600 rows in ")
    arrow = ["score", str(mixed / "my.csv"), "-o", "-", "--format", "arrow"]
    found = CliRunner().invoke(cli, arrow)
    table = pa.ipc.open_stream(found.stdout_bytes).read_all()
    assert table["score"].to_pylist() == expected.tolist()


def test_several_inputs_become_one_file_in_their_order(score, mixed, tmp_path, table, expected):
    for i, start in enumerate((0, 200, 400)):
        table[start : start + 200].to_parquet(tmp_path / f"part-{i}.parquet")
    assert score("part-*.parquet", "-o", "all.parquet")[0] == 0
    assert read(tmp_path / "all.parquet")["score"].tolist() == expected.tolist()


def test_an_address_is_read_and_written(score, table, expected):
    from service.tables.places import find_filesystem

    filesystem, _ = find_filesystem("memory://bulk")
    filesystem.pipe_file("/bulk/in/my.csv", table.to_csv(index=False).encode())
    assert score("memory://bulk/in", "-o", "memory://bulk/out/", "--resume")[0] == 0
    found = pd.read_csv(io.BytesIO(filesystem.cat_file("/bulk/out/my.csv")))
    assert found["score"].tolist() == expected.tolist()


def test_the_summary_says_what_is_odd_and_which_rows_are_most_abnormal(score, table, tmp_path):
    table.loc[70, "amount"] = 1e9
    table.loc[[80, 90], "merchant"] = ["yacht", "zoo"]
    table.to_csv(tmp_path / "odd.csv", index=False)
    said = score("odd.csv", "-o", "out.csv")[1]
    assert "cells out of range: amount 1 cells unknown: merchant 2 cells missing: visits 30" in said
    assert "outliers: " in said
    assert "the most abnormal rows: -0." in said
    assert ", row 307: merchant 'casino', visits 0.0, when '2026-01-31 11:06:34'" in said
    assert said.endswith("written to out.csv")


def test_a_word_among_numbers_stops_with_file_row_and_column(score, table, tmp_path):
    table["amount"] = table["amount"].astype(object)
    table.loc[[333, 500], "amount"] = "lots"
    write_as(table, tmp_path / "bad.csv")
    code, said = score("bad.csv", "-o", "out.csv")
    assert code == 1
    assert said.startswith(
        "isoserve: bad.csv, row 333 (the first is 0), column 1 (amount): 'lots' is not a number; "
    )
    assert names(tmp_path) == ["bad.csv"]


def test_bad_rows_go_to_a_file_with_their_reasons(score, table, tmp_path, expected):
    lines = table.to_csv(index=False).splitlines()
    lines[1 + 100] += ",one more"
    lines[1 + 101] = lines[1 + 101].replace(",", ",lots", 1)
    lines[1 + 300] = lines[1 + 300].replace("-", "/")
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    code, said = score("bad.csv", "-o", "out.csv", "--rejects", "rejects.csv")
    assert (code, "597 rows" in said, "3 rows rejected" in said) == (0, True, True)
    good = np.delete(expected, [100, 101, 300])
    assert read(tmp_path / "out.csv")["score"].tolist() == good.tolist()
    rejects = read(tmp_path / "rejects.csv")
    assert rejects["row"].tolist() == [100, 101, 300]
    assert rejects["column"].fillna("").tolist() == ["", "amount", "when"]
    assert rejects["reason"][0] == "9 cells, the line of names 8"
    assert rejects["cells"][0].endswith("one more")
    assert json.loads(rejects["cells"][1])["id"] == "A00101"


def test_rows_after_a_line_that_is_none_keep_their_numbers(score, table, tmp_path):
    lines = table.to_csv(index=False).splitlines()
    lines[1 + 5] += ",one more"
    lines[1 + 200] = lines[1 + 200].replace(",", ",lots", 1)
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    assert "row 5 (the first is 0) has 9 cells" in score("bad.csv", "-o", "out.csv")[1]
    score("bad.csv", "-o", "out.csv", "--rejects", "rejects.csv")
    assert read(tmp_path / "rejects.csv")["row"].tolist() == [5, 200]


@pytest.fixture
def ten(tmp_path, table):
    """A folder of ten files."""
    folder = tmp_path / "ten"
    folder.mkdir()
    for i in range(10):
        table[60 * i : 60 * i + 60].to_parquet(folder / f"{i}.parquet")
    return folder


@pytest.mark.parametrize("output", ["out.parquet", "out/"])
def test_a_column_that_is_missing_in_the_third_of_ten_files_ends_before_the_first(
    score, ten, table, tmp_path, output
):
    table.drop(columns="city").to_parquet(ten / "2.parquet")
    code, said = score(ten, "-o", output)
    assert code == 1
    assert f"{ten}/2.parquet: column 'city' is missing" in said
    assert names(tmp_path) == ["ten"]


def test_files_that_differ_do_not_become_one(score, ten, table, tmp_path):
    table.drop(columns="note").to_parquet(ten / "2.parquet")
    code, said = score(ten, "-o", "out.parquet")
    assert (code, "2.parquet: column 'note' of " in said) == (1, True)
    assert score(ten, "-o", "out.parquet", "--keep", "id")[0] == 0


def test_a_truncated_parquet_file_leaves_nothing(score, table, tmp_path):
    whole = write_as(table, tmp_path / "my.parquet").read_bytes()
    for cut in (whole[:-100], whole[: len(whole) // 2], whole[:5000] + b"\0" * 3000 + whole[8000:]):
        (tmp_path / "my.parquet").write_bytes(cut)
        code, said = score("my.parquet", "-o", "out.csv")
        assert (code, said.startswith("isoserve: my.parquet cannot be read: ")) == (1, True)
        assert names(tmp_path) == ["my.parquet"]


def test_a_folder_is_gone_on_with_where_it_stopped(score, ten, tmp_path, expected):
    whole = (ten / "6.parquet").read_bytes()
    (ten / "6.parquet").write_bytes(whole[:4] + bytes(1500) + whole[1504:])  # its end is whole
    code, said = score(ten, "-o", "out/", "--threads", 1)
    out = tmp_path / "out"
    assert (code, "6.parquet" in said) == (1, True)
    done = sorted(path.name for path in out.glob("*.parquet"))
    assert done == [f"{i}.parquet" for i in range(6)]
    before = {name: (out / name).stat().st_mtime_ns for name in done}
    (ten / "6.parquet").write_bytes(whole)
    code, said = score(ten, "-o", "out/", "--resume")
    assert (code, said.startswith("600 rows in ")) == (0, True)
    assert {name: (out / name).stat().st_mtime_ns for name in done} == before
    scores = [read(out / f"{i}.parquet")["score"] for i in range(10)]
    assert np.array_equal(np.concatenate(scores), expected)
    code, said = score(ten, "-o", "out/", "--resume", "--threshold", -0.1)
    assert (code, "out/ was begun with another threshold" in said) == (1, True)


def test_a_file_that_changed_is_scored_again(score, ten, tmp_path, table):
    score(ten, "-o", "out/")
    table[:3].to_parquet(ten / "4.parquet")
    (tmp_path / "out/7.parquet").unlink()
    assert score(ten, "-o", "out/", "--resume")[1].startswith("543 rows in ")
    assert len(read(tmp_path / "out/4.parquet")) == 3
    assert len(read(tmp_path / "out/7.parquet")) == 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my.csv", "-o", "my.csv"], "my.csv is an input; name another output"),
        (["my.csv", "-o", "out.xlsx"], "out.xlsx is neither a .csv, a .parquet nor an .arrow file"),
        (["my.csv", "-o", "out.csv", "--keep", "idd"], "no column 'idd' to keep (is it 'id'?)"),
        (["my.csv", "-o", "out.csv", "--resume"], "--resume goes with an output folder"),
        (["my.cvs", "-o", "out.csv"], "there is no file my.cvs (is it 'my.csv'?)"),
        (["scored.csv", "-o", "out.csv"], "scored.csv: there is a column 'score' already"),
        (["my.csv", "-o", "out.csv", "--scheduler", "tcp://x"], "goes with --engine dask"),
        (["my.csv", "-o", "/proc/nowhere/out.csv"], "/proc/nowhere/out.csv cannot be written ("),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(score, table, tmp_path, arguments, said):
    (tmp_path / "a").mkdir()
    for name in ("my.csv", "a/my.csv"):
        table.to_csv(tmp_path / name, index=False)
    table.assign(score=1).to_csv(tmp_path / "scored.csv", index=False)
    code, found = score(*arguments)
    assert (code, said in found) == (1, True)


def test_files_of_several_folders_keep_their_places(score, table, tmp_path):
    for name in ("1/my.csv", "2/deep/my.csv.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        table.to_csv(tmp_path / name, index=False)
    assert score("1", "2", "-o", "out/", "--format", "parquet")[0] == 0
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("out/**/*.parquet"))
    assert found == ["out/1/my.parquet", "out/2/deep/my.parquet"]


def test_a_full_disk_leaves_nothing(score, mixed, table, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        for kind in ("csv", "parquet", "arrow"):
            code, said = score(mixed / "my.csv", mixed / "my.csv", "-o", small / f"out.{kind}")
            expected = f"isoserve: {small}/out.{kind} cannot be written (No space left on device)"
            assert (code, said) == (1, expected)
            assert names(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_nothing_is_imported_that_scoring_does_without(mixed, tmp_path):
    program = (
        "import sys; sys.argv[0] = 'isoserve'; from service.__main__ import cli; "
        "cli(sys.argv[1:], standalone_mode=False); "
        "print({'pandas', 'sklearn', 'scipy.special', 'gunicorn', 'flask'} & set(sys.modules))"
    )
    arguments = ["score", str(mixed / "my.csv"), "-o", str(tmp_path / "out.parquet")]
    found = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True,
        env=os.environ | {"ISOSERVE_MODEL": str(mixed / "model.pickle")},
    )  # fmt: skip
    assert found.stdout.endswith("\nset()\n")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_ends_it_with_a_sentence_while_it_waits_for_rows(mixed, tmp_path, number, code):
    command = [sys.executable, "-m", "service", "score", "-", "-o", str(tmp_path / "out.csv")]
    environment = os.environ | {"ISOSERVE_MODEL": str(mixed / "model.pickle")}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment,
    ) as process:  # fmt: skip
        lines = (mixed / "my.csv").read_bytes().splitlines(keepends=True)
        process.stdin.write(lines[0] + b"".join(lines[1:]) * 200)
        process.stdin.flush()
        while not names(tmp_path):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stderr.read() == b"isoserve: stopped; nothing was written\n"
    assert names(tmp_path) == []


def test_plain_scikit_learn_gives_the_same_scores(score, mixed, tmp_path, detector, table):
    forest = pickle.loads((mixed / "model.pickle").read_bytes())
    score(mixed / "my.csv", "-o", "out.parquet")
    from service.rows import RawTable

    rows = [[row[name] if row[name] != "" else None for name in NAMES] for row in make_rows(600)]
    values = detector.columns.encode(RawTable(rows, tuple(NAMES))).values
    found = parquet.read_table(tmp_path / "out.parquet")["score"].to_numpy()
    assert np.array_equal(found, forest.decision_function(values))
