"""Clients that send predictions, and checks of the counts against their answers."""

import json
import random
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from service.state.counts import SCORE_BOUNDS
from tests.support.callers import Caller, Crowd, Unanswered

from .model import Tally

CLIENTS = 8


@dataclass(frozen=True)
class Answer:
    """One acknowledged request: when it was sent and answered, and the totals in its answer."""

    puid: str
    began: float
    ended: float
    tally: Tally
    observation: int
    nb_outliers: int


class Client(Caller):
    """Sends batches, one after the other, until stopped."""

    def __init__(self, port, name, batches, again):
        super().__init__(port)
        self._name, self._batches, self._again = name, batches, again
        self.answers, self.broken, self.faults = [], [], []

    def work(self):
        for serial, batch in enumerate(self._batches):
            if self.stop.is_set() or (self.broken and not self._again):
                break
            self._predict(f"{self._name}-{serial}", batch)

    def _predict(self, puid, batch):
        body = f'{{"meta":{{"puid":"{puid}"}},"data":{{"ndarray":{batch.rows}}}}}'
        try:
            reply = self.post("/predict", body)
        except Unanswered as error:
            self.broken += [batch.tally] if error.sent else []
            return
        if reply.status != 200:
            self.faults.append(f"{reply.status} {reply.body[:200]!r}")
            return
        meta = json.loads(reply.body)["meta"]
        gauges = {gauge["key"]: gauge["value"] for gauge in meta["metrics"]}
        if meta["puid"] != puid:
            self.faults.append(f"the answer to {puid} has the puid {meta['puid']}")
        observation, nb_outliers = gauges["observation"], gauges["nb_outliers"]
        self.answers.append(
            Answer(puid, reply.sent, reply.ended, batch.tally, observation, nb_outliers)
        )


def crowd_of(service, name, batches, again=True):
    """Return eight clients; `batches(number)` returns the batches of each."""
    return Crowd(
        Client(service.port, f"{name}-{number}", batches(number), again)
        for number in range(CLIENTS)
    )


def powers_of_two(model):
    """Give each client endless batches of one size; sizes are different powers of two."""
    chance = random.Random(16)
    known = [[model.batch(2**number, chance) for _ in range(20)] for number in range(CLIENTS)]
    return lambda number: cycle(known[number])


def mixed(model, rows, chance):
    """Return batches of 1 to 400 rows that sum up to `rows`."""
    batches = []
    while rows:
        size = min(rows, chance.choice((1, 1, 1, 5, 20, 100, 400)))
        batches.append(model.batch(size, chance))
        rows -= size
    return batches


def read_tally(service):
    """Return the counts that the service reports."""
    samples = service.scrape()
    bounds = [*map(str, SCORE_BOUNDS), "+Inf"]
    running = [int(samples["isoserve_score_bucket", (("le", bound),)]) for bound in bounds]
    return Tally(
        int(samples["isoserve_samples_total", ()]),
        int(samples["isoserve_outliers_total", ()]),
        tuple(np.diff(running, prepend=0).tolist()),
    )


def reconcile(report, before, crowd, service):
    """Compare the counts with the clients' answers; return them."""
    counted = read_tally(service)
    known = Tally.sum([before, *(answer.tally for answer in crowd.all("answers"))])
    broken = crowd.all("broken")
    fitting = fitting_sizes(counted, known, broken)
    report.check(len(fitting) == 1, f"counted {counted.rows} rows where {known.rows} are known")
    report.faults += crowd.all("faults")
    report.acknowledged += known.rows - before.rows
    report.sent += known.rows - before.rows + sum(tally.rows for tally in broken)
    report.counted = counted.rows
    report.broken += len(broken)
    report.broken_counted += fitting[0] if fitting else 0
    return counted


def fitting_sizes(counted, known, broken):
    """Return the sizes of the subsets of `broken` that `counted` has beyond `known`; two at most.

    There are 2 ** n subsets, so sums that are too large, or can no longer become large enough, are
    dropped at once.
    """
    missing = np.subtract(counted.numbers, known.numbers)
    tallies = np.array(sorted((tally.numbers for tally in broken), reverse=True), int)
    sums, left = {(0,) * len(missing): [0]}, tallies.sum(axis=0)
    for tally in tallies:
        left = left - tally
        for partial, sizes in list(sums.items()):
            longer = tuple((partial + tally).tolist())
            if np.all(longer <= missing):
                sums[longer] = [*sums.get(longer, []), *(size + 1 for size in sizes)][:2]
        sums = {one: sizes for one, sizes in sums.items() if np.all(one + left >= missing)}
    return sums.get(tuple(missing.tolist()), [])


def count_wrong_totals(answers, name):
    """Count the answers whose total lacks a row answered before or includes one sent after."""
    rows = np.array([a.tally.rows if name == "observation" else a.tally.outliers for a in answers])
    began, ended = np.array([a.began for a in answers]), np.array([a.ended for a in answers])
    totals = np.array([getattr(answer, name) for answer in answers])
    by_end, by_begin = np.argsort(ended), np.argsort(began)
    answered = np.concatenate([[0], np.cumsum(rows[by_end])])
    begun = np.concatenate([[0], np.cumsum(rows[by_begin])])
    least = answered[np.searchsorted(ended[by_end], began)] + rows
    most = begun[np.searchsorted(began[by_begin], ended)]
    return int(((totals < least) | (totals > most)).sum())
