"""Counts: exact under threads, processes, kills at any instruction, restarts and damage."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.errors import BadSetting
from service.rows import Totals, Verdict
from service.state.counts import (
    DURATION_BOUNDS,
    FILE_NAME,
    SCORE_BOUNDS,
    SERIES,
    Counts,
    Durations,
    reset_counts,
)
from service.state.folder import StateFolder
from service.state.shared import MAX_PROCESSES
from tests.support.children import in_child, wait_for
from tests.support.examples import NIGHTLY, STRIDE, examples
from tests.support.stepping import steps


def verdict(*scores, threshold=0.0):
    return Verdict(np.array(scores, dtype=float), threshold)


ONE = verdict(-0.2)
THREE = verdict(0.1, -0.2, 0.3)


def numbers(snapshot):
    """All that one update of the samples changes together."""
    return (
        snapshot.totals,
        snapshot.score_buckets,
        round(snapshot.score_sum, 9),
        snapshot.last_outlier_share,
        snapshot.last_mean_score,
    )


@pytest.fixture(params=["file", "memory"])
def counts(request, tmp_path):
    return Counts(tmp_path if request.param == "file" else None)


def test_new_counts_are_zero(counts):
    snapshot = counts.read()
    assert snapshot.totals == Totals(0, 0)
    assert not any(snapshot.score_buckets)
    assert snapshot.requests == {}


def test_totals_include_the_rows_just_added(counts):
    assert counts.add(ONE) == Totals(1, 1)
    assert counts.add(THREE) == Totals(4, 2)
    assert counts.read().totals == counts.totals() == Totals(4, 2)


@pytest.mark.parametrize("score", [-0.7, -0.5, -0.449, 0.0, 0.05, 0.5, 0.51, np.nextafter(0.1, 1)])
def test_a_single_row_is_counted_like_a_batch(score):
    alone, together = Counts(), Counts()
    alone.add(verdict(score))
    alone.add(verdict(score))
    together.add(verdict(score, score))
    assert numbers(alone.read()) == numbers(together.read())


def test_a_score_on_a_bound_belongs_to_the_interval_below():
    counts = Counts()
    counts.add(verdict(*SCORE_BOUNDS, 0.9))
    assert counts.read().score_buckets == (1,) * (len(SCORE_BOUNDS) + 1)


def test_a_score_equal_to_the_threshold_is_an_inlier():
    counts = Counts()
    assert counts.add(verdict(0.25, threshold=0.25)) == Totals(1, 0)
    assert counts.add(verdict(0.25, 0.2, threshold=0.25)) == Totals(3, 1)


def test_the_latest_request_is_that_of_all_processes(counts):
    counts.add(THREE)
    wait_for(in_child(lambda: counts.add(ONE)))
    snapshot = counts.read()
    assert snapshot.last_outlier_share == 1.0
    assert snapshot.last_mean_score == -0.2
    counts.add(verdict(0.5, 0.25))
    assert counts.read().last_mean_score == 0.375


def test_requests_are_counted_by_route_and_class(counts):
    for seconds in (0.0005, 0.0006, 99.0):
        counts.observe("/predict", "2xx", seconds)
    counts.observe("/predict", "4xx", 0.25)
    requests = counts.read().requests
    assert requests["/predict", "2xx"].buckets == (1, 1, 0, 0, 0, 0, 0, 1)
    assert requests["/predict", "2xx"].count == 3
    assert requests["/predict", "2xx"].seconds == pytest.approx(99.0011)
    assert requests["/predict", "4xx"].count == 1
    assert len(DURATION_BOUNDS) + 1 == len(requests["/predict", "4xx"].buckets)


def test_a_route_seen_first_by_one_process_is_the_same_in_all(counts):
    def work(first):
        for i in range(20):
            counts.observe(f"/{(first + i) % 20}", "2xx", 0.001)

    wait_for(*[in_child(lambda n=n: work(7 * n)) for n in range(4)])
    requests = counts.read().requests
    assert {key: one.count for key, one in requests.items()} == {
        (f"/{i}", "2xx"): 4 for i in range(20)
    }


def test_routes_beyond_the_limit_are_counted_as_other(counts):
    for i in range(1000):
        counts.observe(f"/route-{i}", "4xx", 0.001)
    requests = counts.read().requests
    assert len(requests) < SERIES
    assert sum(one.count for one in requests.values()) == 1000
    assert requests["other", "4xx"].count == 1000 - len(requests) + 1


def test_a_very_long_route_is_truncated(counts):
    counts.observe("/" + "x" * 500, "2xx", 0.001)
    wait_for(in_child(lambda: counts.observe("/" + "x" * 500, "2xx", 0.001)))
    ((route, _),) = counts.read().requests
    assert counts.read().requests[route, "2xx"].count == 2
    assert 100 < len(route) < 120


def test_a_duration_is_never_negative(counts):
    counts.observe("/predict", "2xx", -86_400.0)
    assert counts.read().requests["/predict", "2xx"] == Durations(1, 0.0, (1,) + (0,) * 7)


def test_threads_lose_no_update(counts):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(lambda i: counts.add(ONE if i % 2 else THREE), range(4000)))
    finally:
        sys.setswitchinterval(interval)
    assert counts.read().totals == Totals(8000, 4000)
    assert sum(counts.read().score_buckets) == 8000
    assert len({totals.samples for totals in seen}) == 4000  # each answer includes its own rows


def test_cells_do_not_overlap_and_each_lies_on_one_page(counts):
    file = counts._file
    first, second = file.samples(0), file.requests(0, 0)
    assert first._copies[1] + first._size + 1 <= second._selector
    assert second._copies[1] + second._size + 1 <= file.requests(0, 1)._selector
    for slot in range(MAX_PROCESSES):
        for cell in (file.samples(slot), file.requests(slot, SERIES - 1)):
            start, end = cell._selector * 8, (cell._copies[1] + cell._size + 1) * 8
            assert start // 4096 == (end - 1) // 4096


def test_processes_lose_no_update(counts):
    def work():
        for _ in range(2000):
            counts.add(THREE)
            counts.observe("/predict", "2xx", 0.002)

    wait_for(*[in_child(work) for _ in range(4)])
    snapshot = counts.read()
    assert snapshot.totals == Totals(24_000, 8000)
    assert snapshot.requests["/predict", "2xx"].count == 8000
    assert snapshot.requests["/predict", "2xx"].buckets[2] == 8000


def test_totals_include_the_earlier_rows_of_every_process(counts):
    for i in range(1, 8):
        wait_for(in_child(lambda: counts.add(ONE)))
        assert counts.add(ONE) == Totals(2 * i, 2 * i)


def test_concurrent_readers_see_whole_updates_only(counts):
    def work():
        while True:
            counts.add(THREE)
            counts.add(ONE)

    children = [in_child(work) for _ in range(2)]
    last = 0
    try:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            snapshot = counts.read()
            assert sum(snapshot.score_buckets) == snapshot.totals.samples >= last
            assert snapshot.totals.outliers == sum(snapshot.score_buckets[:10])
            last = snapshot.totals.samples
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert last > 1000


def test_an_update_killed_at_any_instruction_leaves_the_old_or_the_new_numbers():
    counts = Counts()
    counts.add(THREE)
    seen = []
    for _ in steps(lambda: counts.add(ONE), prepare=lambda: counts.add(ONE)):
        now = numbers(counts.read())
        if now not in seen:
            seen.append(now)
    assert [totals for totals, *_ in seen] == [Totals(4, 2), Totals(5, 3)]
    assert [sum(buckets) for _, buckets, *_ in seen] == [4, 5]
    assert [score_sum for _, _, score_sum, *_ in seen] == [0.0, -0.2]


def test_a_request_killed_at_any_instruction_is_counted_completely_or_not():
    counts = Counts()
    work = lambda: counts.observe("/predict", "2xx", 0.25)  # noqa: E731
    seen = {counts.read().requests["/predict", "2xx"] for _ in steps(work, prepare=work)}
    assert {(one.count, one.seconds, sum(one.buckets)) for one in seen} == {
        (1, 0.25, 1),
        (2, 0.5, 2),
    }


def kill_at(step):
    """Trace this thread and kill the process at the given line of counts.py."""
    passed = 0

    def trace(frame, event, _):
        nonlocal passed
        code = frame.f_code
        if not code.co_filename.endswith("/counts.py"):
            return None
        if code.co_name == "_read_names":
            return None  # it only reads, so it leaves nothing half done
        if event == "line":
            passed += 1
            if passed == step:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


@pytest.mark.parametrize("rows", [ONE, THREE], ids=["one row", "three rows"])
def test_a_slot_is_usable_after_a_writer_was_killed_at_any_line(tmp_path, rows):
    counts = Counts(tmp_path)
    for step in range(1, 2000, STRIDE):

        def work(step=step):
            counts.reset_after_fork()
            kill_at(step)
            counts.add(rows)

        before = counts.read().totals
        status = os.waitpid(in_child(work), 0)[1]
        after = counts.read()
        whole = Totals(before.samples + len(rows), before.outliers + int(rows.labels.sum()))
        assert after.totals in (before, whole)
        assert sum(after.score_buckets) == after.totals.samples
        if not os.WIFSIGNALED(status):
            break
    else:
        pytest.fail("the update never ended")
    assert step > 20
    assert after.totals == whole
    assert counts.add(ONE).samples == whole.samples + 1  # in the slot that all of them used
    assert Counts(tmp_path).read().totals.samples == whole.samples + 1


def test_requests_are_counted_completely_after_a_writer_was_killed_at_any_line(tmp_path):
    counts = Counts(tmp_path)
    before = Durations(buckets=(0,))
    for step in range(1, 2000, STRIDE):

        def work(step=step):
            counts.reset_after_fork()
            kill_at(step)
            counts.observe("/new", "2xx", 0.25)

        status = os.waitpid(in_child(work), 0)[1]
        after = counts.read().requests.get(("/new", "2xx"), before)
        assert after.count - before.count in (0, 1)
        assert after.seconds == 0.25 * after.count
        assert sum(after.buckets) == after.count
        if not os.WIFSIGNALED(status):
            break
        before = after
    assert step > 20
    assert after.count == before.count + 1
    assert Counts(tmp_path).read() == counts.read()


def test_slots_of_dead_workers_are_reused(tmp_path, monkeypatch):
    monkeypatch.setattr("service.state.counts.MAX_PROCESSES", 8)
    counts = Counts(tmp_path)
    for _ in range(8 + 10):
        wait_for(in_child(lambda: counts.add(ONE)))
    assert counts.add(ONE) == Totals(8 + 11, 8 + 11)


def test_only_running_processes_are_counted(counts):
    assert counts.processes() == 0
    counts.begin()
    counts.begin()
    assert counts.processes() == 1
    wait_for(in_child(lambda: counts.add(ONE)))
    assert counts.processes() == 1


def test_a_forked_process_claims_its_own_slot(counts):
    counts.add(ONE)

    def work():
        for _ in range(1000):
            counts.add(ONE)

    child = in_child(work)
    work()
    wait_for(child)
    assert counts.read().totals == Totals(2001, 2001)


def test_more_processes_than_slots_are_refused(monkeypatch):
    monkeypatch.setattr("service.state.counts.MAX_PROCESSES", 1)
    counts = Counts()
    counts.add(ONE)

    def work():
        with pytest.raises(BadSetting, match="more than 1 processes"):
            counts.add(ONE)

    wait_for(in_child(work), in_child(work))
    assert counts.add(ONE) == Totals(2, 2)


def test_counts_continue_after_a_restart(tmp_path):
    first = Counts(tmp_path)
    first.add(THREE)
    first.observe("/predict", "2xx", 0.002)
    wait_for(in_child(lambda: first.add(ONE)))
    second = Counts(tmp_path)
    assert second.read() == first.read()
    assert second.add(ONE) == Totals(5, 3)


def test_counts_without_a_file_start_at_zero():
    Counts().add(ONE)
    assert Counts().read().totals == Totals(0, 0)


def test_counts_continue_in_a_version_with_more_routes(tmp_path):
    old, new = Counts(tmp_path), Counts(tmp_path)
    old.add(ONE)
    old.observe("/predict", "2xx", 0.002)
    new.observe("/v2/health/live", "2xx", 0.002)
    assert new.read().totals == Totals(1, 1)
    assert set(new.read().requests) == {("/predict", "2xx"), ("/v2/health/live", "2xx")}


def test_other_bounds_are_another_layout(tmp_path, caplog, monkeypatch):
    Counts(tmp_path).add(ONE)
    monkeypatch.setattr("service.state.counts.DURATION_BOUNDS", (0.1,) * len(DURATION_BOUNDS))
    assert Counts(tmp_path).read().totals == Totals(0, 0)
    assert "its layout is different (duration bounds)" in caplog.text


def test_counts_begin_anew_for_a_model_with_other_columns(tmp_path, caplog):
    Counts(tmp_path, ("mean", "sd")).add(ONE)
    assert Counts(tmp_path, ("mean", "sd")).read().totals == Totals(1, 1)
    assert not caplog.records
    for columns in (("sd", "mean"), ("mean",), ("mean", "sd", "x")):
        assert Counts(tmp_path, columns).read().totals == Totals(0, 0)
        assert "its layout is different (columns of the model)" in caplog.records[-1].message


def test_every_damaged_byte_in_use_is_detected(tmp_path, caplog):
    """Every damaged byte is detected, unless it is not in use."""
    counts = Counts(tmp_path)
    counts.add(THREE)
    counts.add(ONE)
    counts.observe("/predict", "2xx", 0.002)
    right = counts.read()
    path = tmp_path / FILE_NAME
    sound, blank = path.read_bytes(), bytes(Counts()._file._file.memory)
    random = np.random.default_rng(16)
    used = random.permutation([i for i in range(len(sound)) if sound[i] != blank[i]])
    for index in [*used[: examples(150)], *random.integers(0, len(sound), examples(50))]:
        content = bytearray(sound)
        content[index] ^= random.integers(1, 256)
        path.write_bytes(content)
        read = Counts(tmp_path).read()
        assert read == right or (read.totals == Totals(0, 0) and not read.requests)
    assert "its numbers are damaged" in caplog.text
    assert "its names are damaged" in caplog.text


def test_a_page_lost_on_the_disk_is_detected(tmp_path, caplog):
    """The lost page reads as zeros. Pages of slots that were never used are checked, too."""
    counts = Counts(tmp_path)
    counts.add(THREE)
    for i in range(60):
        counts.observe(f"/{i}", "2xx", 0.002)
    right, path = counts.read(), tmp_path / FILE_NAME
    sound = path.read_bytes()
    pages = [*range(0, 28 * 4096, 4096), len(sound) // 8192 * 4096, (len(sound) - 1) // 4096 * 4096]
    unnoticed = []
    for page in pages:
        content = bytearray(sound)
        content[page : page + 4096] = bytes(len(content[page : page + 4096]))
        path.write_bytes(content)
        read = Counts(tmp_path).read()
        assert read == right or (read.totals == Totals(0, 0) and not read.requests)
        if read == right:
            unnoticed.append(page)
    nothing_there = [page for page in unnoticed if not any(sound[page : page + 4096])]
    assert unnoticed == nothing_there


def test_reset_deletes_the_counts_and_refuses_while_the_service_runs(tmp_path):
    running = StateFolder(tmp_path)
    Counts(tmp_path).add(ONE)
    with pytest.raises(
        BadSetting, match=rf"running service \(process {os.getpid()}\); stop it first"
    ):
        reset_counts(tmp_path)
    del running
    reset_counts(tmp_path)
    assert Counts(tmp_path).read().totals == Totals(0, 0)
    reset_counts(tmp_path)


def test_a_stopped_writer_does_not_block_the_others(counts):
    """One writer is stopped with SIGSTOP while it writes continuously."""

    def work():
        while True:
            counts.add(ONE)

    child = in_child(work)
    try:
        while not counts.read().totals.samples:
            time.sleep(0.001)
        for _ in range(50):
            os.kill(child, signal.SIGSTOP)
            before = counts.read().totals.samples
            assert counts.add(ONE).samples >= before + 1
            os.kill(child, signal.SIGCONT)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_forking_while_a_thread_counts_does_not_deadlock(counts):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            counts.add(ONE)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_for(*[in_child(lambda: counts.add(ONE)) for _ in range(20 if NIGHTLY else 8)])
    finally:
        stop.set()
        thread.join()
