"""Feedback storms: every acknowledged truth is on the disk, with its row, and counted once."""

import contextlib
import json
import random
import resource
import sqlite3
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.support.callers import Caller, Crowd

from .clients import CLIENTS
from .faults import fill, kill_a_worker, small_disk, stop_growth
from .feedback_clients import (
    FeedbackClient,
    check_feedback,
    check_figures,
    feedback_clients,
    query,
)
from .report import Report, check_log


def storm_feedback_workers(model, start, kills=100):
    """Send feedback while random workers are killed."""
    report, chance = Report(f"feedback, {kills} x kill -9 of a worker"), random.Random(6)
    clients = []
    service = start(workers=4)
    for kill in range(kills):
        with feedback_clients(service, f"fw{kill}", model) as crowd:
            killed = kill_a_worker(service, chance)
        report.note_wait(killed, crowd.all("times"))
        clients += crowd.callers
        check_feedback(report, service, clients)
    service.stop()
    check_log(report, service)
    return report


def storm_feedback_group(model, start, kills=30):
    """Send feedback while all processes are killed at once; restart on the same folder."""
    report, chance = Report(f"feedback, {kills} x kill -9 of the group"), random.Random(7)
    clients = []
    service = start(workers=4)
    for kill in range(kills):
        with feedback_clients(service, f"fg{kill}", model, again=False) as crowd:
            time.sleep(chance.uniform(0.05, 0.5))
            service.kill()
        service = start(workers=4, again=service)
        clients += crowd.callers
        check_feedback(report, service, clients)
        sound = query(service, "PRAGMA integrity_check") == [("ok",)]
        report.check(sound, "the database is damaged")
    service.stop()
    check_log(report, service)
    return report


class Repeater(FeedbackClient):
    """Sends truths from a list, and predicts each row before its first truth."""

    def __init__(self, port, name, model):
        super().__init__(port, name, model)
        self.truths = []
        """(number, truth), in the order in which to send them."""

    def work(self):
        for number, truth in self.truths:
            if self.possible[f"r{number}", 0] == {None}:
                values = [self._model.values[number % len(self._model.values)].tolist()]
                self.predict(f"r{number}", values)
            self.send_truths(f"r{number}", None, [truth])


def storm_feedback_repeats(model, start, messages=10_000):
    """Repeat 30 % of the messages, half of those with another truth, in random order."""
    report = Report(f"{messages:,} feedback messages, 30 % of them repeated or revised")
    chance, truths, first = random.Random(8), {}, int(messages * 0.7)
    service = start(workers=4)
    clients = [Repeater(service.port, f"fr{n}", model) for n in range(CLIENTS)]
    for number in range(first):
        client = clients[number % CLIENTS]
        score = model.scores[number % len(model.scores)]
        key = f"r{number}", 0
        client.labels[key], client.possible[key] = int(score < 0), {None}
        truths[number] = chance.randrange(2)
        client.truths.append((number, truths[number]))
    revisions = 0
    for number in chance.sample(range(first), messages - first):
        revised = number % 2 == 0
        revisions += revised
        truth = 1 - truths[number] if revised else truths[number]
        clients[number % CLIENTS].truths.append((number, truth))
    for client in clients:
        chance.shuffle(client.truths)
    with Crowd(clients) as crowd:
        crowd.join()
    check_feedback(report, service, clients)
    report.check(report.acknowledged == messages, "a feedback failed")
    report.check(report.counted == first, "a row is missing, or counted twice")
    kept = query(service, "SELECT count(*) FROM truth_revisions")[0][0]
    report.check(kept == revisions, f"{kept} revisions are kept of {revisions}")
    service.stop()
    check_log(report, service)
    return report


def storm_feedback_many(model, start, labels=100_000):
    """Check that a message takes no longer with many stored rows than with few."""
    report = Report(f"{labels:,} labels")
    service = start(workers=2)
    client = FeedbackClient(service.port, "fm", model)

    def median(count=300):
        before = len(client.times)
        for _ in range(count):
            client.label_new_rows(1)
        return float(np.median([end - began for began, end in client.times[before:][1::2]]))

    with contextlib.closing(client.connection):
        median()
        few = median()
        while len(client.keys) < labels:
            client.label_new_rows(500)
        many = median()
    print(f"one feedback: {1000 * few:.2f} ms, after {len(client.keys):,} labels "
          f"{1000 * many:.2f} ms (medians of 300)", flush=True)  # fmt: skip
    report.check(many < 1.5 * few + 0.001, "many labels slow a feedback down")
    check_feedback(report, service, [client])
    service.stop()
    check_log(report, service)
    return report


class RepeatingClient(Caller):
    """Sends one body repeatedly; notes status and seconds of each answer."""

    def __init__(self, port, path, body):
        super().__init__(port)
        self._path, self._body = path, json.dumps(body)
        self.answers = []

    def call(self):
        reply = self.post(self._path, self._body)
        refused = reply.status == 503 and reply.headers["Retry-After"] != "1"
        self.answers.append(("503 without Retry-After" if refused else reply.status, reply.seconds))
        time.sleep(0.005)


def send_both(service, seconds):
    """Predict and send feedback for a while, three clients each; return the answers of both."""
    row = {"data": {"ndarray": [[1.0, 2.0]]}}
    feedback = {"request": row, "truth": {"data": {"ndarray": [0]}}}
    predicting = Crowd(RepeatingClient(service.port, "/predict", row) for _ in range(3))
    sending = Crowd(RepeatingClient(service.port, "/send-feedback", feedback) for _ in range(3))
    with predicting, sending:
        time.sleep(seconds)
    return predicting.all("answers"), sending.all("answers")


def check_refused(report, service, predicted, answers):
    """Check that predictions went on, that feedback got 503, and that the metrics say so."""
    report.sent += len(answers)
    report.check({status for status, _ in predicted} == {200}, "a prediction failed")
    report.check({status for status, _ in answers} == {503}, "feedback was not answered with 503")
    slowest = max(seconds for _, seconds in answers)
    report.check(slowest < 2, f"feedback was answered with 503 after {slowest:.1f} s")
    up = service.scrape()["isoserve_storage_up", ()]
    report.check(up == 0, "the metrics say that the storage is up")
    return slowest


def check_recovered(report, service):
    """Check that feedback is stored again a second later, without a restart."""
    predicted, first = send_both(service, 1.0)
    more, answers = send_both(service, 1.0)
    recovered = {status for status, _ in predicted + more + answers} == {200}
    report.check(recovered, "feedback or predictions still fail")
    report.check(service.scrape()["isoserve_storage_up", ()] == 1, "the storage is not up again")
    report.acknowledged += sum(status == 200 for status, _ in first + answers)
    report.sent += len(first + answers)
    pairs = query(service, "SELECT label, truth FROM truths ORDER BY id")
    report.counted = len(pairs)
    check_figures(report, service, pairs)
    report.check(report.counted == report.acknowledged, "a row is missing, or was stored halfway")


def storm_feedback_locked(model, start, seconds=30):
    """F10: another process holds the database's lock."""
    report = Report(f"feedback, a lock held for {seconds} s")
    service = start(workers=2)
    send_both(service, 0.5)
    predicted, answers = send_both(service, max(seconds / 4, 2))
    report.acknowledged = len(query(service, "SELECT 1 FROM truths"))
    free = np.percentile([seconds for _, seconds in predicted], 99)
    lock = sqlite3.connect(service.state / "feedback.db", isolation_level=None)
    with contextlib.closing(lock):
        lock.execute("BEGIN EXCLUSIVE")
        predicted, answers = send_both(service, seconds)
        slowest = check_refused(report, service, predicted, answers)
    held = np.percentile([seconds for _, seconds in predicted], 99)
    print(f"99 % of predictions within {1000 * free:.1f} ms, with the lock held "
          f"{1000 * held:.1f} ms; slowest 503 {slowest:.2f} s", flush=True)  # fmt: skip
    check_recovered(report, service)
    service.stop()
    check_log(report, service)
    return report


def storm_feedback_full(model, start, seconds=10):
    """F4: the disk is full."""
    report = Report(f"feedback, a full disk for {seconds} s")
    with tempfile.TemporaryDirectory() as folder, small_disk(folder) as mounted:
        service = start(workers=2, state_dir=folder)
        try:
            send_both(service, 0.5)
            if mounted:
                fill(folder)
            else:
                stop_growth(service, (service.state / "feedback.db-wal").stat().st_size)
            send_both(service, 1.0)  # SQLite's write-ahead log may still have space for some
            report.acknowledged = len(query(service, "SELECT 1 FROM truths"))
            predicted, answers = send_both(service, seconds)
            check_refused(report, service, predicted, answers)
            if mounted:
                (Path(folder) / "fill").unlink()
            else:
                stop_growth(service, resource.RLIM_INFINITY)
            check_recovered(report, service)
            service.stop()
            check_log(report, service)
        finally:
            service.kill()
    return report
