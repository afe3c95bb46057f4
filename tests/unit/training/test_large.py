"""Train on tables that are larger than the pool, and in several files."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from fsspec import filesystem

from service.errors import CannotTrain
from service.model.file import load_model
from service.model.scorer import compile_forest
from training.export import describe
from training.forest import fit_forest
from training.spread import describe_whole, score_whole
from training.tables import from_file
from training.train import main

ROWS = 5_000


def watch(rows, share):
    pass


@pytest.fixture(scope="module")
def frame():
    """A table of every kind of column, some with gaps."""
    chance = np.random.default_rng(16)
    amount = chance.lognormal(size=ROWS).round(3)
    amount[chance.random(ROWS) < 0.01] = np.nan
    seconds = chance.integers(0, 10**7, ROWS)
    return pd.DataFrame(
        {
            "amount": amount,
            "visits": chance.poisson(3, ROWS),
            "country": chance.choice(["DE", "AT", "CH", ""], ROWS, p=[0.7, 0.2, 0.09, 0.01]),
            "shop": [f"shop {i}" for i in chance.zipf(1.5, ROWS) % 300],
            "when": pd.Timestamp("2026-01-01") + pd.to_timedelta(seconds, "s"),
            "active": chance.choice(["yes", "no"], ROWS),
            "key": [f"k{i:x}" for i in range(ROWS)],
            "fraud": (amount > 20).astype(int),
        }
    )


@pytest.fixture
def files(frame, tmp_path):
    """The table in ten files of Parquet."""
    path = tmp_path / "parts"
    path.mkdir()
    for i, part in enumerate(np.array_split(np.arange(ROWS), 10)):
        frame.iloc[part].to_parquet(path / f"part-{i}.parquet")
    return path


@pytest.fixture
def whole(frame, tmp_path):
    """The table in one file."""
    path = tmp_path / "all.parquet"
    frame.to_parquet(path)
    return path


def trained(path, **options):
    """Return the forest and the card of a table, as the command line makes them."""
    dataset = from_file(path, label="fraud", **options)
    forest = fit_forest(dataset.X, contamination=0.02, n_estimators=20)
    if dataset.whole is None:
        return forest, describe(forest, dataset)
    spread = score_whole(forest, dataset.whole, watch)
    return forest, describe_whole(describe(forest, dataset), forest, spread)


def test_a_pool_that_holds_the_table_changes_nothing(files, whole):
    (forest, card), (other, same) = trained(whole), trained(files, pool=ROWS)
    assert compile_forest(forest).nodes.tobytes() == compile_forest(other).nodes.tobytes()
    assert forest.offset_ == other.offset_
    expected = json.loads(card.to_json()) | {"created": "", "dataset": ""}
    assert json.loads(same.to_json()) | {"created": "", "dataset": ""} == expected
    assert "pool" not in expected


def test_columns_are_those_of_the_whole_table(files, whole):
    sample, all_rows = from_file(files, pool=500), from_file(whole)
    assert len(sample) == 500
    assert sample.whole.rows == ROWS
    assert sample.columns == all_rows.columns
    assert sample.left_out == all_rows.left_out
    assert sample.recognised == all_rows.recognised


def test_the_offset_and_the_card_are_of_all_rows(files, whole):
    forest, card = trained(files, pool=500)
    assert (card.rows, card.pool, card.quality.rows) == (ROWS, 500, 500)
    scores = compile_forest(forest).score_samples(from_file(whole, label="fraud").X)
    assert forest.offset_ == pytest.approx(np.percentile(scores, 2.0), abs=1e-6)
    decided = scores - forest.offset_
    assert card.training_outlier_share == pytest.approx((decided < 0).mean(), abs=1e-3)
    exact = np.quantile(decided, np.linspace(0, 1, 101), method="inverted_cdf")
    assert card.score_quantiles == pytest.approx(exact, abs=2e-6)


def test_the_range_and_the_gaps_of_a_column_are_those_of_all_rows(files, frame):
    _, card = trained(files, pool=500)
    amount = next(column for column in card.columns if column.name == "amount")
    assert amount.range == (frame["amount"].min(), frame["amount"].max())
    assert amount.missing == frame["amount"].isna().sum()


def test_samples_are_drawn_from_all_rows_and_are_then_the_table(files):
    dataset = from_file(files, pool=500, samples=800)
    assert (len(dataset), dataset.whole) == (800, None)
    assert from_file(files, pool=500, samples=100).columns[0].missing < 10


def test_folders_globs_and_addresses_are_tables(files, frame, tmp_path, capsys):
    store = filesystem("memory")
    store.pipe_file("/lake/a.csv", frame[:3_000].to_csv(index=False).encode())
    store.pipe_file("/lake/b.csv", frame[3_000:].to_csv(index=False).encode())
    options = ["--label", "fraud", "--pool", "1000", "--n_estimators", "20", "--save_path"]
    for name, place in (("parts", files), ("*", f"{files}/*"), ("lake", "memory://lake")):
        assert main(["--dataset", str(place), *options, str(tmp_path / "out")]) == 0
        model = load_model(tmp_path / "out" / "model.pickle", require_card=True)
        assert (model.card.dataset, model.card.rows, model.card.pool) == (name, ROWS, 1_000)
    printed = capsys.readouterr()
    assert "the trees grow from 1,000 of 5,000 rows, drawn uniformly (--pool)" in printed.err
    assert "from 1,000 rows drawn uniformly (--pool)" in printed.out


def test_a_model_of_a_large_table_is_the_same_every_time(files):
    (forest, card), (other, same) = (trained(files, pool=700) for _ in range(2))
    assert forest.offset_ == other.offset_
    assert card.score_quantiles == same.score_quantiles


def refusal(capsys, tmp_path, place, *options):
    """Return the sentence that training ends with, without the folder; nothing is written."""
    out = tmp_path / "out"
    command = ["--dataset", str(place), *options, "--pool", "500", "--save_path", str(out)]
    assert main(command) == 1
    assert not out.exists()
    return capsys.readouterr().err.splitlines()[-1].replace(f"{tmp_path}/", "")


def test_a_column_missing_in_the_third_of_ten_files_is_named(files, tmp_path, capsys):
    path = files / "part-2.parquet"
    pd.read_parquet(path).drop(columns="visits").to_parquet(path)
    assert refusal(capsys, tmp_path, files) == (
        "error: parts/part-2.parquet has no column 'visits', and parts/part-0.parquet has; the "
        "files of a table have the same columns"
    )


def test_a_truncated_file_is_named(files, tmp_path, capsys):
    path = files / "part-7.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(capsys, tmp_path, files).startswith(
        "error: parts/part-7.parquet cannot be read: "
    )


def test_a_word_in_a_column_of_numbers_is_named_with_its_row(tmp_path, capsys):
    path = tmp_path / "my.csv"
    lines = [f"{i % 7},{i % 11 / 8}" for i in range(400_000)]
    lines[350_001] = "3,many"
    path.write_text("a,b\n" + "\n".join(lines))
    assert refusal(capsys, tmp_path, path) == (
        "error: column 'b' holds numbers, but 'many' in row 350001 of my.csv is none (1 of 400,000 "
        'cells); correct it, or say what the column is: --columns "b:text", or leave it out: '
        '--columns "-b"'
    )


def test_other_faults_of_one_file_name_it(files, tmp_path, capsys):
    path = files / "part-4.parquet"
    frame = pd.read_parquet(path)
    frame.assign(amount=np.where(frame.index == frame.index[3], np.inf, 1.0)).to_parquet(path)
    assert refusal(capsys, tmp_path, files) == (
        "error: column 'amount' of parts has 1 cell infinite or above 3.4e38, the first in row 3 "
        "of parts/part-4.parquet; correct them"
    )
    frame.assign(amount="much").to_parquet(path)
    assert refusal(capsys, tmp_path, files) == (
        "error: parts/part-4.parquet does not fit parts/part-0.parquet: Field amount has "
        "incompatible types: double vs large_string"
    )


def test_a_table_that_grows_while_it_is_read_is_refused(files, frame):
    dataset = from_file(files, pool=500)
    forest = fit_forest(dataset.X, n_estimators=5)
    frame.to_parquet(files / "part-9.parquet")
    with pytest.raises(CannotTrain, match="it had 5,000 rows and then 9,500; train again"):
        score_whole(forest, dataset.whole, watch)


def test_a_file_is_the_same_table_at_once_and_in_batches(whole, monkeypatch):
    at_once = from_file(whole)
    monkeypatch.setattr("training.tables._SMALL", 1)
    in_batches = from_file(whole)
    assert np.array_equal(in_batches.X, at_once.X, equal_nan=True)
    assert in_batches.recognised == at_once.recognised


@pytest.mark.slow
@pytest.mark.parametrize("step", ["reading", "scoring"])
def test_ctrl_c_leaves_no_traceback_and_no_file(tmp_path, step):
    chance = np.random.default_rng(1)
    for i in range(2):
        frame = pd.DataFrame({"a": chance.random(2_000_000), "b": chance.random(2_000_000)})
        frame.to_parquet(tmp_path / f"{i}.parquet")
    command = ["-m", "training.train", "--dataset", tmp_path, "--pool", "1000", "--save_path"]
    running = subprocess.Popen(
        [sys.executable, *map(str, command), tmp_path / "out"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=dict(os.environ),
        # What a shell starts in the background ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    for line in running.stderr:
        if line.startswith(step):
            break
    time.sleep(0.05)  # less than either step takes
    running.send_signal(signal.SIGINT)
    assert running.stderr.read() == "stopped\n"
    assert running.wait(timeout=30) == 130
    running.stderr.close()
    assert not (tmp_path / "out").exists()
