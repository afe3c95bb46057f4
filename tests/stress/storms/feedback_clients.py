"""Clients that send feedback, and the check that the database holds what they sent."""

import contextlib
import json
import random
import sqlite3
from itertools import chain

from sklearn import metrics

from tests.support.callers import Caller, Crowd, Unanswered

from .clients import CLIENTS


class FeedbackClient(Caller):
    """Predicts rows and sends their truths: new ones, repeated ones and revised ones.

    `possible` has the truths that each row may have by now; None stands for no truth.
    """

    def __init__(self, port, name, model, again=True):
        super().__init__(port)
        self._name, self._model, self._again = name, model, again
        self._chance = random.Random(name)
        self.labels, self.possible, self.keys = {}, {}, []
        self.sent = self.acknowledged = self.broken = 0
        self.times, self.faults = [], []

    def work(self):
        while not self.stop.is_set() and (self._again or not self.broken):
            if self.keys and self._chance.random() < 0.3:
                self.send_truths(*self._chance.choice(self.keys), [self._chance.randrange(2)])
            else:
                self.label_new_rows(self._chance.choice((1, 1, 1, 3)))

    def label_new_rows(self, rows):
        """Predict rows and send the truth of each."""
        start = self._chance.randrange(len(self._model.values) - rows)
        puid = f"{self._name}-{len(self.times)}-{start}"
        values = self._model.values[start : start + rows].tolist()
        if not self.predict(puid, values):
            return
        for row, score in enumerate(self._model.scores[start : start + rows]):
            self.labels[puid, row] = int(score < 0)
            self.possible[puid, row] = {None}
            self.keys.append((puid, row))
        self.send_truths(puid, None, [self._chance.randrange(2) for _ in range(rows)])

    def send_truths(self, puid, row, truths):
        """Send the truth of one row of a prediction, or of all its rows."""
        meta = {"puid": puid} | ({} if row is None else {"tags": {"row": row}})
        body = {"request": {"meta": meta}, "truth": {"data": {"ndarray": truths}}}
        body["reward"] = self._chance.choice((0.1, 0.7, -1, 0))
        keys = [(puid, number if row is None else row) for number in range(len(truths))]
        for key, truth in zip(keys, truths, strict=True):
            self.possible[key] |= {truth}
        self.sent += len(keys)
        if not self._well_answered("/send-feedback", body):
            return
        self.acknowledged += len(keys)
        for key, truth in zip(keys, truths, strict=True):
            self.possible[key] = {truth}

    def predict(self, puid, values):
        """Predict rows under a puid; return whether they were answered."""
        body = {"meta": {"puid": puid}, "data": {"ndarray": values}}
        return self._well_answered("/predict", body)

    def _well_answered(self, path, body):
        try:
            reply = self.post(path, json.dumps(body))
        except Unanswered as error:
            self.broken += error.sent or not self._again
            return False
        self.times.append((reply.sent, reply.ended))
        if reply.status != 200:
            self.faults.append(f"{reply.status} {reply.body[:200]!r}")
        return reply.status == 200


def feedback_clients(service, name, model, again=True):
    """Return a crowd of clients that send feedback until it ends."""
    return Crowd(FeedbackClient(service.port, f"{name}-{n}", model, again) for n in range(CLIENTS))


def query(service, statement):
    """Query the database of a service on a separate connection."""
    with contextlib.closing(sqlite3.connect(service.state / "feedback.db", timeout=10)) as database:
        return database.execute(statement).fetchall()


def check_feedback(report, service, clients):
    """Compare the table with what was acknowledged, and /metrics with the table."""
    table = {(puid, row): (label, truth) for puid, row, label, truth in query(
        service, "SELECT puid, row_index, label, truth FROM truths ORDER BY id")}  # fmt: skip
    possible = dict(chain.from_iterable(client.possible.items() for client in clients))
    labels = dict(chain.from_iterable(client.labels.items() for client in clients))
    found = {key: table[key][1] if key in table else None for key in possible}
    lost = sum(found[key] not in possible[key] for key in possible)
    report.check(not lost, f"{lost} rows do not have the truth that was acknowledged last")
    wrong = sum(label != labels.get(key) for key, (label, _) in table.items())
    report.check(not wrong, f"{wrong} rows are stored with another label than was answered")
    report.sent = sum(client.sent for client in clients)
    report.acknowledged = sum(client.acknowledged for client in clients)
    report.broken = sum(client.broken for client in clients)
    report.counted = len(table)
    unsure = {key for key, truths in possible.items() if len(truths) > 1}
    report.broken_counted = sum(key in table for key in unsure)
    report.faults += list(chain.from_iterable(client.faults for client in clients))[:3]
    check_figures(report, service, list(table.values()))


def check_figures(report, service, pairs):
    """Compare /metrics with scikit-learn's functions over (label, truth) pairs."""
    samples = {name: value for (name, _), value in service.scrape().items()}
    expected = {}
    for suffix, part in (("tot", pairs), ("roll", pairs[-100:])):
        if not part:
            continue
        labels, truths = zip(*part, strict=True)
        expected[f"nb_labels_{suffix}"], expected[f"nb_outliers_{suffix}"] = len(part), sum(truths)
        expected[f"accuracy_{suffix}"] = metrics.accuracy_score(truths, labels)
        if any(labels):
            expected[f"precision_{suffix}"] = metrics.precision_score(truths, labels)
        if any(truths) and not all(labels):
            expected[f"recall_{suffix}"] = metrics.recall_score(truths, labels)
            expected[f"f2_{suffix}"] = metrics.fbeta_score(truths, labels, beta=2)
        if (any(truths) or any(labels)) and not all(labels):
            expected[f"f1_{suffix}"] = metrics.f1_score(truths, labels)
        if suffix == "tot":
            matrix = metrics.confusion_matrix(truths, labels, labels=[0, 1]).ravel().tolist()
            names = ("true_negative", "false_positive", "false_negative", "true_positive")
            expected |= dict(zip(names, matrix, strict=True))
    rewards = [reward for (reward,) in query(service, "SELECT reward FROM rewards")]
    expected["isoserve_feedback_rewards"] = sum(reward != 0 for reward in rewards)
    expected["isoserve_feedback_reward"] = sum(rewards) / 1_000_000
    wrong = [name for name, value in expected.items() if samples.get(name) != value]
    report.check(not wrong, f"{wrong} differ from a recount")
    return samples
