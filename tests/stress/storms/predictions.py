"""Prediction storms: every row is counted once and recorded completely, despite kills."""

import os
import random
import tempfile
import time

import numpy as np

from .clients import CLIENTS, count_wrong_totals, crowd_of, mixed, powers_of_two, reconcile
from .faults import (
    JUMPING_CLOCK,
    SIZE_LIMIT,
    SMALL_FILES,
    cannot_grow,
    fill,
    kill_a_worker,
    small_disk,
    stop_growth,
)
from .model import Tally
from .report import Report, check_drift, check_log, check_records

# Changes at any time: the free space on the disk.
FREE_BYTES = "isoserve_state_free_bytes"


def storm_workers(model, start, kills=100):
    """F1: kill random workers repeatedly."""
    report, chance = Report(f"{kills} x kill -9 of a worker"), random.Random(1)
    service = start(workers=4)
    counted, batches = Tally(), powers_of_two(model)
    for kill in range(kills):
        with crowd_of(service, f"w{kill}", batches) as crowd:
            killed = kill_a_worker(service, chance)
        report.note_wait(killed, [(a.began, a.ended) for a in crowd.all("answers")])
        counted = reconcile(report, counted, crowd, service)
    check_records(report, model, service)
    check_drift(report, model, service)
    service.stop()
    check_log(report, service)
    return report


def storm_group(model, start, kills=30):
    """F2: kill all processes at once and start again on the same folder."""
    report, chance = Report(f"{kills} x kill -9 of the whole group"), random.Random(2)
    service = start(workers=4)
    counted, batches = Tally(), powers_of_two(model)
    for kill in range(kills):
        with crowd_of(service, f"g{kill}", batches, again=False) as crowd:
            time.sleep(chance.uniform(0.05, 0.5))
            service.kill()
        service = start(workers=4, again=service)
        counted = reconcile(report, counted, crowd, service)
        rows = check_records(report, model, service)
        found = np.unique(rows["puid"], return_counts=True)
        found = dict(zip((puid.decode() for puid in found[0]), found[1], strict=True))
        kept = sorted(crowd.all("answers"), key=lambda answer: -answer.ended)[:100]
        whole = all(found.get(answer.puid) == answer.tally.rows for answer in kept)
        report.check(whole, "an acknowledged row is not recorded")
    service.stop()
    check_log(report, service)
    return report


def storm_disk(model, start, predictions=1000):
    """F4: fill the disk of the state folder; predict, restart and predict again.

    If no small disk can be mounted, the size of the service's files is limited instead.
    """
    with tempfile.TemporaryDirectory() as folder, small_disk(folder) as mounted:
        full = "on a full disk" if mounted else "where no file can grow"
        report = Report(f"{predictions} predictions {full}")
        service = start(workers=2, state_dir=folder)
        try:
            if mounted:
                fill(folder)
                report.check(os.statvfs(folder).f_bavail == 0, "the disk is not full")
            else:
                stop_growth(service, SIZE_LIMIT)
            counted, chance = Tally(), random.Random(4)
            for half in range(2):
                sizes = iter([chance.randint(1, 300) for _ in range(predictions // 2)])
                batches = [model.batch(size, chance) for size in sizes]
                shares = lambda number, all_of=batches: all_of[number::CLIENTS]  # noqa: E731
                with crowd_of(service, f"d{half}", shares) as crowd:
                    crowd.join()
                report.check(len(crowd.all("answers")) == predictions // 2, "a prediction failed")
                report.check(mounted or cannot_grow(service), "files can grow")
                counted = reconcile(report, counted, crowd, service)
                if half == 0:
                    service.stop()
                    how = ("-m", "service") if mounted else ("-c", SMALL_FILES)
                    service = start(workers=2, state_dir=folder, again=service, command=how)
            check_records(report, model, service)
            service.stop()
            check_log(report, service)
        finally:
            service.kill()
    return report


def storm_clock(model, start, seconds=10.0, faults=()):
    """F15: let the clock jump by a day, back and forth.

    Only the time of day as Python reads it jumps, not the clocks for durations. `faults` names
    clocks that jump as well, which proves that the checks detect a service using the wrong one.
    """
    report = Report(f"{seconds:.0f} s of a clock that jumps by a day")
    # Cold, so that the clocks are replaced before the service imports them. Where the clocks for
    # durations jump as well, no request may count as hung: it would cost its worker.
    more = {"timeout": 10**6} if faults else {}
    service = start(workers=2, cold=True, command=("-c", JUMPING_CLOCK, *faults), **more)
    with crowd_of(service, "c", powers_of_two(model)) as crowd:
        time.sleep(seconds)
    reconcile(report, Tally(), crowd, service)
    name = "isoserve_request_duration_seconds_sum"
    sums = [value for (sample, _), value in service.scrape().items() if sample == name]
    limit = 2 * CLIENTS * (seconds + 60)
    report.check(sums and all(0 <= value < limit for value in sums), "durations follow the clock")
    rows = check_records(report, model, service)
    report.check((np.diff(rows["time"]) < -3600).any(), "the clock did not jump")
    for client in range(CLIENTS):
        ours = [puid.split(b"-") for puid in rows["puid"].tolist()]
        order = [int(serial) for _, number, serial in ours if int(number) == client]
        report.check(order == sorted(order), "the order of the record follows the clock")
    service.stop()
    check_log(report, service)
    return report


def wait_for_workers(service, before):
    """Wait until all workers have started again."""
    key, limit = ("isoserve_workers", ()), time.monotonic() + 15
    while service.scrape()[key] != before[key] and time.monotonic() < limit:
        time.sleep(0.1)


def storm_restarts(model, start, restarts=5):
    """F19: restart; every metric stays the same, except those about the scrapes themselves."""
    report = Report(f"{restarts} restarts")
    service = start(workers=3)
    counted, batches = Tally(), powers_of_two(model)
    for restart in range(restarts):
        with crowd_of(service, f"r{restart}", batches) as crowd:
            time.sleep(0.5)
        counted = reconcile(report, counted, crowd, service)
        before = service.scrape()
        report.check(service.stop() == 0, "the service stopped with an error")
        service = start(workers=3, again=service)
        wait_for_workers(service, before)
        after = service.scrape()
        kept = {key for key in before if not any(word in key[0] for word in ("drift", FREE_BYTES))}
        ours = {key for key in kept if ("route", "/predict") in key[1] or "route" not in str(key)}
        changed = [key for key in ours if before[key] != after.get(key)]
        report.check(not changed, f"a restart changed {changed[:3]}")
    service.stop()
    check_log(report, service)
    return report


def storm_rows(model, start, rows=200_000):
    """No fault: 4 workers with 4 threads each, batches of mixed sizes, exact counts."""
    report = Report(f"{rows:,} rows, 4 workers x 4 threads")
    service = start(workers=4, threads=4)
    shares = [mixed(model, rows // CLIENTS, random.Random(number)) for number in range(CLIENTS)]
    with crowd_of(service, "x", lambda number: shares[number]) as crowd:
        crowd.join()
    reconcile(report, Tally(), crowd, service)
    answers = crowd.all("answers")
    report.check(report.acknowledged == rows == report.counted, "rows are missing")
    for name in ("observation", "nb_outliers"):
        wrong = count_wrong_totals(answers, name)
        report.check(not wrong, f"{wrong} answers have a wrong {name}")
    key = "isoserve_requests_total", (("route", "/predict"), ("status", "2xx"))
    check_drift(report, model, service)
    scrapes = [service.scrape() for _ in range(12)]
    report.check(scrapes[0][key] == len(answers), "requests are missing")
    changing = ("route", FREE_BYTES)  # scrapes change the metrics that have a route
    ours = [
        {key: value for key, value in one.items() if not any(word in str(key) for word in changing)}
        for one in scrapes
    ]
    report.check(all(one == ours[0] for one in ours), "workers report different metrics")
    recorded = check_records(report, model, service)
    report.check(len(recorded) == min(rows, 100_000), "rows are missing in the record")
    service.stop()
    check_log(report, service)
    return report
