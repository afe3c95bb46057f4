"""The record of scored rows: keeping, finding, deleting, exporting; kills, restarts, damage."""

import gzip
import os
import signal
import stat
import threading
import time
from pathlib import Path
from random import Random
from zlib import crc32

import numpy as np
import pandas as pd
import pytest

from service.errors import BadInput, BadSetting
from service.rows import Verdict
from service.state.files import quarantined
from service.state.puids import PUID_BYTES, recorded_name, storage_bytes, storage_key
from service.state.record_format import hash_names, hash_rows
from service.state.records import FILE_NAME, MAX_BYTES, as_table, begin_records, open_records
from service.tables.write import write_table
from service.web.middleware import new_id
from tests.support.children import in_child, wait_for
from tests.support.examples import NIGHTLY
from tests.support.stepping import EVERY, steps

RECORDS = "service.state.records"
VERSION = "0123456789ab"
SAMPLE = Path(__file__).parents[2] / "data" / "state" / "records.bin.gz"


def batch(rows, start=0.0):
    """Rows (i, -i) and scores that tell them apart; every second one is an outlier."""
    numbers = start + np.arange(float(rows))
    scores = np.where(numbers % 2 == 1, -1.0, 1.0) / (numbers + 2)
    return np.column_stack([numbers, -numbers]), Verdict(scores, 0.0, VERSION)


def append(records, puid, rows=1, start=0.0):
    values, verdict = batch(rows, start)
    records.append(puid, values, verdict)


@pytest.fixture
def records(tmp_path):
    return begin_records(tmp_path, ["a", "b"], 1000)


def test_a_new_record_is_empty(records):
    assert len(records.read()) == 0
    assert len(records.find("p")) == 0


@pytest.mark.parametrize("rows", [1, 8, 9, 500])
def test_a_request_is_recorded_row_by_row(records, rows):
    before = time.time()
    append(records, "p", rows)
    read = records.read()
    values, verdict = batch(rows)
    assert np.array_equal(read["values"], values)
    assert np.array_equal(read["score"], verdict.scores)
    assert np.array_equal(read["label"], verdict.labels)
    assert read["row"].tolist() == list(range(rows))
    assert set(read["puid"].tolist()) == {b"p"}
    assert set(read["version"].tolist()) == {VERSION.encode()}
    assert ((before <= read["time"]) & (read["time"] <= time.time())).all()


def test_requests_of_every_size_come_in_order(records):
    sizes = [1, 3, 8, 9, 40, 2, 100, 1, 300]
    for i, size in enumerate(sizes):
        append(records, f"p{i}", size)
    read = records.read()
    assert [int(puid[1:]) for puid in read["puid"]] == np.repeat(range(9), sizes).tolist()
    assert records.read(last=301)["row"].tolist() == [0, *range(300)]


def test_exactly_the_last_rows_are_kept(records):
    for i in range(150):
        append(records, f"p{i}", 17, start=17 * i)
    assert records.read()["values"][:, 0].tolist() == list(range(1550, 2550))


def test_the_last_rows_of_a_request_larger_than_the_record_are_kept(records):
    append(records, "p", 5000)
    read = records.read()
    assert read["row"].tolist() == list(range(4000, 5000))
    assert np.array_equal(read["values"], batch(5000)[0][4000:])


def test_recent_rows_of_a_slow_worker_are_kept_while_a_fast_one_overwrites_blocks(tmp_path):
    slow, fast = (
        begin_records(tmp_path, ["a", "b"], 1000),
        begin_records(tmp_path, ["a", "b"], 1000),
    )
    for i in range(40):
        append(slow, f"slow{i}")
        append(fast, f"fast{i}", 450)
    puids = slow.read()["puid"].tolist()
    assert len(puids) == 1000
    assert list(dict.fromkeys(puids)) == [
        b"fast37",
        b"slow38",
        b"fast38",
        b"slow39",
        b"fast39",
    ]


def test_the_last_rows_are_kept_whichever_worker_writes_or_dies(tmp_path, monkeypatch):
    writers = 6
    monkeypatch.setattr(f"{RECORDS}._SPARE_BLOCKS", 2 * writers)
    random = np.random.default_rng(16)
    shared = begin_records(tmp_path, ["a", "b"], 200)
    crew = [begin_records(tmp_path, ["a", "b"], 200) for _ in range(writers)]
    written = 0
    for _ in range(1500):
        slow = random.integers(1, writers + 1)  # the first writes most, the last one rarely
        writer = random.integers(slow)
        if random.random() < 0.02:  # it dies and another one replaces it
            crew[writer] = begin_records(tmp_path, ["a", "b"], 200)
        rows = int(random.choice([1, 1, 2, 30]))
        append(crew[writer], "p", rows, start=written)
        written += rows
        last = list(range(max(0, written - 200), written))
        assert shared.read()["values"][:, 0].tolist() == last


def test_small_requests_between_the_blocks_of_a_large_one_are_kept_as_long(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{RECORDS}._SPARE_BLOCKS", 4)
    records = begin_records(tmp_path, ["a", "b"], 1000)
    written = []
    write_piece, lock = records._write_piece, records._lock

    class Turns:
        """The threads' lock: a small request is written whenever a large one releases it."""

        acquire, release = lock.acquire, lock.release

        def __enter__(self):
            lock.acquire()

        def __exit__(self, *_):
            lock.release()
            append(records, "small", start=-len(written))
            written.append(-len(written))

    def remember(rows, key):
        length = write_piece(rows, key)
        written.extend(rows["values"][:length, 0].tolist())
        return length

    monkeypatch.setattr(records, "_write_piece", remember)
    monkeypatch.setattr(records, "_lock", Turns())
    for size in (900, 500, 700, 900, 300, 40, 800, 900, 200):
        append(records, "large", size)
        assert records.read()["values"][:, 0].tolist() == written[-1000:]
        assert records.find("large")["row"].tolist() == list(range(size))


def test_the_rows_of_a_prediction_are_found_by_its_puid(records):
    for i in range(30):
        append(records, f"p{i}", 5, start=i)
    found = records.find("p7")
    assert found["row"].tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(found["values"], batch(5, start=7)[0])
    assert len(records.find("p")) == 0


def test_a_puid_used_twice_finds_the_later_prediction(records):
    append(records, "p", 20)
    append(records, "p", 3, start=100)
    assert records.find("p")["values"][:, 0].tolist() == [100, 101, 102]


def test_a_puid_used_twice_at_one_time_finds_the_request_that_began_later(records, monkeypatch):
    """Their stamps overlap, and the earlier one wrote the newest row."""
    now = time.monotonic_ns()
    for later in (0, 5):
        monkeypatch.setattr(f"{RECORDS}.time.monotonic_ns", lambda later=later: now + later)
        append(records, "p", 20 if not later else 3, start=100 * later)
    assert records.find("p")["values"][:, 0].tolist() == [500, 501, 502]


def test_puids_with_the_same_check_sum_are_distinguished(records):
    random, known = Random(16), {}
    for _ in range(10**6):
        puid = random.randbytes(8).hex()
        twin = known.setdefault(crc32(puid.encode()), puid)
        if twin != puid:
            break
    assert twin != puid
    append(records, twin, start=1)
    append(records, puid, start=2)
    append(records, "other", start=3)
    assert records.find(twin)["values"].tolist() == [[1, -1]]
    assert records.find(puid)["values"].tolist() == [[2, -2]]


def test_a_puid_used_for_every_row_reads_only_the_latest_rows(records, monkeypatch):
    for i in range(60):
        append(records, "p", 17, start=i)
    indices_read, whole = [], records._read_whole
    monkeypatch.setattr(
        records, "_read_whole", lambda *rows: indices_read.append(rows) or whole(*rows)
    )
    assert records.find("p")["values"][:, 0].tolist() == list(range(59, 76))
    assert [len(indices) for indices, _ in indices_read] == [17]


def test_a_puid_used_in_two_processes_finds_the_later_prediction(records):
    append(records, "p", 300)
    wait_for(in_child(lambda: append(records, "p", start=5)))
    assert records.find("p")["values"].tolist() == [[5, -5]]


@pytest.mark.parametrize(
    "puid", ["", "ü" * 24, "x" * 48, "x" * 49, "ü" * 1000, "a\0", "\0" * 60, "\ud800"]
)
def test_any_text_can_be_a_puid(records, puid):
    append(records, puid + "y")
    append(records, puid, start=3)
    append(records, "other")
    assert records.find(puid)["values"].tolist() == [[3, -3]]


def test_long_puids_with_a_common_prefix_are_distinguished(records):
    append(records, "x" * 100 + "1", start=1)
    append(records, "x" * 100 + "2", start=2)
    assert records.find("x" * 100 + "1")["values"].tolist() == [[1, -1]]


def test_setting_the_clock_back_keeps_the_order_of_rows(records, monkeypatch):
    append(records, "p", start=1)
    monkeypatch.setattr(f"{RECORDS}.time.time", lambda: 1.0)
    append(records, "p", start=2)
    assert records.read()["values"][:, 0].tolist() == [1, 2]
    assert records.find("p")["values"].tolist() == [[2, -2]]


def test_values_are_not_recorded_if_turned_off(tmp_path):
    records = begin_records(tmp_path, ["a", "b"], 100, values=False)
    append(records, "p", 1)
    append(records, "q", 20)
    assert records.features == ()
    assert records.read()["values"].shape == (21, 0)
    assert b"\xf0?" not in (tmp_path / FILE_NAME).read_bytes()[-20_000:]  # no 1.0 anywhere


def test_a_wide_record_keeps_fewer_rows_and_logs_it(tmp_path, caplog):
    records = begin_records(tmp_path, [f"f{i}" for i in range(4096)], 100_000)
    assert 5000 < records.rows < 8200
    assert (tmp_path / FILE_NAME).stat().st_size <= MAX_BYTES
    assert f"the last {records.rows} rows are recorded, not 100000" in caplog.text
    os.truncate(tmp_path / FILE_NAME, 0)  # free 256 MB before the test ends


def test_very_wide_rows_are_recorded_without_values(tmp_path, caplog):
    records = begin_records(tmp_path, [f"f{i}" for i in range(300_000)], 100)
    assert (records.rows, records.features) == (100, ())
    assert "too wide to record their values" in caplog.text


def test_a_restart_continues_the_record(tmp_path, monkeypatch):
    append(begin_records(tmp_path, ["a", "b"], 1000), "p", 20)
    clock, boot = time.monotonic_ns, time.monotonic_ns()
    monkeypatch.setattr("time.monotonic_ns", lambda: clock() - boot)  # a machine just booted
    records = begin_records(tmp_path, ["a", "b"], 1000)
    append(records, "q")
    assert records.read()["puid"].tolist() == [b"p"] * 20 + [b"q"]


def test_a_file_that_an_earlier_version_wrote_is_read_and_continued(tmp_path, caplog):
    """Five requests, of 30, 1, 3, 2 and 12 rows; 40 rows are kept."""
    (tmp_path / FILE_NAME).write_bytes(gzip.decompress(SAMPLE.read_bytes()))
    records = begin_records(tmp_path, ["mean", "sd"], 40)
    assert caplog.messages == [
        f"{tmp_path / FILE_NAME} is migrated from format 2 to 4; 0 damaged rows are dropped"
    ]
    requests = {"first": range(8, 30), "one": [100], "x" * 60: range(200, 203)}
    requests |= {"a\0b": range(300, 302), "ü" * 24: range(400, 412)}
    kept = [number for numbers in requests.values() for number in numbers]
    assert records.read()["values"].tolist() == [[number, -number] for number in kept]
    for puid, numbers in requests.items():
        found = records.find(puid)
        assert found["values"][-len(numbers) :, 0].tolist() == list(numbers)
        assert found["time"][0] == 1_790_000_000 + list(requests).index(puid)
        assert found["score"][-1] == (-1.0 if numbers[-1] % 2 else 1.0) / (numbers[-1] + 2)
        assert set(found["version"].tolist()) == {VERSION.encode()}
    append(records, "x" * 60)
    assert records.read()["values"][:, 0].tolist() == [*kept[1:], 0]
    assert records.delete(puid="a\0b") == 2


def test_no_row_is_lost_over_many_restarts_with_little_traffic(tmp_path):
    for i in range(300):
        append(begin_records(tmp_path, ["a", "b"], 1000), "p", start=i)
    read = begin_records(tmp_path, ["a", "b"], 1000).read()
    assert read["values"][:, 0].tolist() == list(range(300))


def test_another_layout_is_quarantined_with_its_rows(tmp_path, caplog):
    append(begin_records(tmp_path, ["a", "b"], 1000), "p", 20)
    begin_records(tmp_path, ["a", "c"], 1000)
    (kept,) = quarantined(tmp_path / FILE_NAME)
    assert f"records.bin is quarantined as {kept.name}: its layout is different" in caplog.text
    assert len(open_records(tmp_path).read()) == 0
    kept.rename(tmp_path / FILE_NAME)
    before = open_records(tmp_path)
    assert len(before.read()) == 20
    assert before.features == ("a", "b")


def test_recorded_values_are_deleted_when_recording_values_is_turned_off(tmp_path, caplog):
    append(begin_records(tmp_path, ["SECRET", "b"], 1000), "p", 20)
    append(begin_records(tmp_path, ["a", "c"], 1000), "p", 20)
    (kept,) = quarantined(tmp_path / FILE_NAME)
    os.truncate(kept, 5000)  # what it contains is unknown
    append(begin_records(tmp_path, ["a", "b"], 1000, values=False), "q", 20)
    assert [path.name for path in tmp_path.iterdir()] == ["records.bin"]
    assert caplog.text.count("it contains values, which are not to be kept") == 2
    assert len(begin_records(tmp_path, ["a", "b"], 1000, values=False).read()) == 20
    begin_records(tmp_path, ["a", "b"], 500, values=False)
    assert len(open_records(tmp_path).read()) == 0
    quarantined(tmp_path / FILE_NAME)[0].rename(tmp_path / FILE_NAME)
    assert len(open_records(tmp_path).read()) == 20


def test_rows_half_written_to_the_disk_are_dropped_and_logged(tmp_path, caplog):
    """A power cut leaves pages of different ages, so the ends of a row may belong to other rows."""
    records = begin_records(tmp_path, ["a", "b"], 1000)
    append(records, "p", 20)
    rows = records._row_bytes
    size = len(rows) // len(records._stamps)
    rows[3 * size : 3 * size + 50] = rows[4 * size : 4 * size + 50]
    rows[6 * size - 50 : 6 * size] = rows[7 * size - 50 : 7 * size]
    rows[9 * size : 12 * size] = bytes(3 * size)
    read = begin_records(tmp_path, ["a", "b"], 1000).read()
    assert sorted(set(range(20)) - set(read["row"].tolist())) == [3, 5, 9, 10, 11]
    assert "5 damaged rows are dropped" in caplog.text


@pytest.mark.parametrize("rows", [1, 9])
def test_a_change_of_any_bit_of_a_row_is_noticed(tmp_path, rows):
    records = begin_records(tmp_path, ["a", "b"], 16)
    append(records, "p", rows)
    written = int(np.flatnonzero(records._stamps)[0]) * records._row_size
    row = records._row_bytes[written : written + records._row_size]
    for bit in range(8 * len(row)):
        row[bit // 8] ^= 1 << bit % 8
        assert len(records.read()) == rows - 1, bit
        row[bit // 8] ^= 1 << bit % 8
    assert len(records.read()) == rows


def test_a_damaged_stamp_does_not_affect_new_stamps(tmp_path):
    records = begin_records(tmp_path, ["a", "b"], 1000)
    append(records, "p", 3)
    records._stamps[1] = 2**63 - 1
    records = begin_records(tmp_path, ["a", "b"], 1000)
    append(records, "q")
    assert records.read()["puid"].tolist() == [b"p", b"p", b"q"]


def test_threads_and_processes_lose_no_row(records):
    def work(worker):
        def thread(number):
            for i in range(10):
                append(records, f"{worker}.{number}.{i}", 1 + 11 * (i % 2))

        threads = [threading.Thread(target=thread, args=(n,)) for n in range(3)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    wait_for(*[in_child(lambda w=w: work(w)) for w in range(4)])
    read = records.read()
    assert len(read) == 4 * 3 * (5 * 1 + 5 * 12)
    assert len(set(read["puid"].tolist())) == 120
    for puid in set(read["puid"].tolist()):
        rows = records.find(puid.decode())
        assert rows["row"].tolist() == list(range(len(rows)))
        assert np.array_equal(rows["values"], batch(len(rows))[0])


def test_concurrent_readers_see_whole_rows_only(tmp_path):
    """Values, score and row belong together; the ring is overwritten many times."""
    records = begin_records(tmp_path, ["a", "b"], 100)

    def work(start):
        while True:
            append(records, str(start), 5, start=start)
            append(records, str(start), 50, start=start)
            start += 100

    children = [in_child(lambda s=s: work(s)) for s in (0, 1_000_000)]
    seen = 0
    try:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            rows = records.read()
            numbers = rows["values"][:, 0]
            assert np.array_equal(rows["values"][:, 1], -numbers)
            assert np.array_equal(np.abs(rows["score"]), 1 / (numbers + 2))
            assert np.array_equal(rows["row"], numbers % 100)
            assert (np.diff(rows["stamp"]) >= 0).all()
            seen = max(seen, numbers.max(initial=0))
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert seen > 10_000


@pytest.mark.parametrize(("rows", "every"), [(1, EVERY), (12, 1 if EVERY == 1 else 23)])
def test_a_write_killed_at_any_instruction_leaves_whole_rows_only(tmp_path, rows, every):
    records = begin_records(tmp_path, ["a", "b"], 20)
    for i in range(200):  # the ring is full: the update writes over old rows
        append(records, f"old{i}", 16)
    values, verdict = batch(rows, start=7)
    lengths = set()

    def work():
        records.append("new", values, verdict)

    for _ in steps(work, lambda: append(records, "warm", rows), every):
        found = records.find("new")
        lengths.add(len(found))
        assert np.array_equal(found["values"], values[: len(found)])
        assert np.array_equal(found["score"], verdict.scores[: len(found)])
    assert lengths >= {0}
    assert len(records.find("new")) == rows


def test_the_record_continues_after_writers_were_killed(tmp_path):
    records = begin_records(tmp_path, ["a", "b"], 200)
    random = np.random.default_rng(16)

    def work():
        while True:
            append(records, new_id(), 1)
            append(records, new_id(), 30)

    for _ in range(60 if NIGHTLY else 20):
        child = in_child(work)
        time.sleep(random.uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    for i in range(200):
        append(records, "after", start=i)
    assert records.read()["values"][:, 0].tolist() == list(range(200))
    assert begin_records(tmp_path, ["a", "b"], 200).drop_damaged() == 0


def test_the_rows_of_a_puid_are_deleted(records, tmp_path):
    append(records, "keep", 20)
    append(records, "SECRET-PUID", 40, start=1000)
    append(records, "keep", 3)
    assert records.delete(puid="SECRET-PUID") == 40
    assert len(records.read()) == 23
    assert len(records.find("SECRET-PUID")) == 0
    content = (tmp_path / FILE_NAME).read_bytes()
    assert b"SECRET-PUID" not in content
    assert np.float64(1007.0).tobytes() not in content
    append(records, "later", 100)
    assert len(records.read()) == 123


def test_deleting_restores_no_older_row_and_loses_no_later_one(tmp_path):
    records = begin_records(tmp_path, ["a", "b"], 1000)
    for i in range(3000):
        append(records, "secret" if i % 2 else "public", 1, start=i)
    records.delete(puid="secret")
    assert records.read()["values"][:, 0].tolist() == list(range(2000, 3000, 2))
    for i in range(3000, 3400):
        append(records, "later", 1, start=i)
    kept = [*range(2400, 3000, 2), *range(3000, 3400)]
    assert records.read()["values"][:, 0].tolist() == kept


def test_an_export_is_a_private_file_and_a_bad_path_is_refused(tmp_path):
    records = begin_records(tmp_path, ["a", "b"], 100)
    append(records, "p", 1)
    (tmp_path / "out.csv").touch(mode=0o644)
    write_table(as_table(records), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadInput, match="cannot be written"):
        write_table(as_table(records), tmp_path / "nowhere" / "out.csv")


def test_rows_older_than_a_time_are_deleted(records, monkeypatch):
    for clock in (100.0, 200.0, 300.0):
        monkeypatch.setattr(f"{RECORDS}.time.time", lambda clock=clock: clock)
        append(records, f"p{clock}", 10)
    assert records.delete(before=300.0) == 20
    assert set(records.read()["time"]) == {300.0}


def test_rows_are_deleted_while_a_service_records(records):
    def work():
        for i in range(400):
            append(records, "secret" if i % 2 else "public", 3, start=i)

    child = in_child(work)
    deleted = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        deleted += records.delete(puid="secret")
    deleted += records.delete(puid="secret")
    assert deleted > 0
    rows = records.read()
    assert set(rows["puid"].tolist()) == {b"public"}
    assert np.array_equal(rows["values"][:, 1], -rows["values"][:, 0])


TRACE = "4bf92f3577b34da6a3ce929d0e0e4700"  # the zeros at its end are kept


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_record_is_exported_as_a_table(tmp_path, kind):
    records = begin_records(tmp_path, ["amount", "score"], 100)
    records.append("p", np.array([[0.1, 1 / 3]]), Verdict(np.array([-0.1]), 0.0, VERSION), TRACE)
    path = tmp_path / f"out.{kind}"
    write_table(as_table(records), path)
    table = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    assert list(table.columns) == [
        "time", "puid", "row", "score", "predicted", "model_version", "trace_id", "amount",
        "feature_score",
    ]  # fmt: skip
    row = ["p", 0, -0.1, 1, VERSION, TRACE, 0.1, 1 / 3]
    assert table.drop(columns="time").iloc[0].tolist() == row
    assert abs(pd.Timestamp(table["time"][0]).timestamp() - time.time()) < 60
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("features", "named"),
    [
        (["feature_time", "time"], ["feature_time", "feature_feature_time"]),
        (["time", "feature_time"], ["feature_feature_time", "feature_time"]),
        (["feature_feature_row", "feature_row", "row"],
         ["feature_feature_row", "feature_row", "feature_feature_feature_row"]),
        (["predicted", "label", "truth"], ["feature_predicted", "label", "truth"]),
        (["time", "puid", "row", "score", "predicted", "model_version", "trace_id"],
         [f"feature_{name}" for name in
          ("time", "puid", "row", "score", "predicted", "model_version", "trace_id")]),
    ],
)  # fmt: skip
def test_every_feature_has_a_column_of_its_own_in_an_export(tmp_path, features, named):
    records = begin_records(tmp_path, features, 100)
    values = np.arange(len(features), dtype=float)
    records.append("p", values[None], Verdict(np.array([-0.1]), 0.0, VERSION))
    table = as_table(records)
    assert list(table)[6:] == named
    assert [table[name][0] for name in named] == values.tolist()
    records.append("q", values[None], Verdict(np.array([-0.1]), 0.0, VERSION), TRACE)
    table = as_table(records)
    assert list(table)[7:] == named
    assert table["trace_id"] == [None, TRACE]


def test_an_export_to_another_file_type_is_refused(records, tmp_path):
    with pytest.raises(BadInput, match=r"neither a \.csv nor a \.parquet"):
        write_table(as_table(records), tmp_path / "out.xls")


def test_a_missing_record_is_refused(tmp_path):
    with pytest.raises(BadSetting, match=r"records\.bin cannot be read"):
        open_records(tmp_path)


@pytest.mark.parametrize("left", [0.02, 0.5, 0.9])
def test_a_record_that_was_cut_keeps_its_whole_rows(tmp_path, left, caplog):
    append(begin_records(tmp_path, ["a", "b"], 1000), "p", 600)
    path = tmp_path / FILE_NAME
    os.truncate(path, int(path.stat().st_size * left))
    exported = open_records(tmp_path).read()["row"].tolist()
    kept = begin_records(tmp_path, ["a", "b"], 1000)
    assert kept.read()["row"].tolist() == exported == list(range(len(exported)))
    assert 0 < len(exported) <= 600
    values, verdict = batch(len(exported))
    assert kept.read()["values"].tolist() == values.tolist()
    assert kept.read()["score"].tolist() == verdict.scores.tolist()
    assert len(quarantined(path)) == 1
    assert f"is quarantined as {quarantined(path)[0].name}" in caplog.text


def test_an_outline_has_the_rows_that_are_kept_in_their_order(records):
    for i in range(90):
        append(records, f"p{i % 60}", 17, start=17 * i)
    records.delete(puid="p59")
    outline, read = records.outline(), records.read()
    assert np.array_equal(records.read_rows(outline), read)
    for name in ("time", "score", "row", "label", "version"):
        assert np.array_equal(getattr(outline, name), read[name])
    assert np.array_equal(records.read_rows(records.outline(40)), records.read(40))
    some = outline.at(outline.label == 1)
    assert np.array_equal(records.read_rows(some), read[read["label"] == 1])


def test_an_outline_of_nothing_is_empty(records):
    outline = records.outline()
    assert len(outline) == len(outline.are_latest) == len(records.read_rows(outline)) == 0


def test_an_outline_tells_which_rows_feedback_is_about(records):
    append(records, "same", 3)
    append(records, "other", 2)
    append(records, "same", 2)
    assert records.outline().are_latest.tolist() == [False] * 3 + [True] * 4


@pytest.mark.parametrize("puid", ["p", "", "a" * 48, "a" * 49, "ü" * 150, "b" * 300, "x\0y"])
def test_a_row_of_an_outline_is_found_by_the_key_of_its_feedback(records, puid):
    append(records, "another", 2)
    append(records, puid, 3)
    name = recorded_name(storage_key(puid, 200))
    assert name == storage_bytes(puid, PUID_BYTES)
    wanted = hash_rows(hash_names(np.array([name], "S48")), np.array([2]))
    outline = records.outline()
    [found] = records.read_rows(outline.at(np.isin(outline.codes, wanted)))
    assert (found["puid"], found["row"]) == (name, 2)


def test_rows_overwritten_since_their_outline_are_left_out(records):
    append(records, "p", 400)
    outline = records.outline()
    for i in range(9):
        append(records, f"q{i}", 1_000)
    assert len(records.read_rows(outline)) == 0
