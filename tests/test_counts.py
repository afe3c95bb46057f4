from concurrent.futures import ThreadPoolExecutor

import numpy as np

from service.counts import DURATION_BOUNDS, SCORE_BOUNDS, Counts, Snapshot, Totals
from service.rows import Verdict


def test_nothing_is_counted_at_first():
    assert Counts().read() == Snapshot()


def test_each_score_falls_into_the_first_bucket_whose_bound_it_does_not_exceed():
    counts = Counts()
    counts.add(Verdict(np.array([-0.6, -0.5, 0.0, 0.01, 0.7]), threshold=0.0))
    buckets = counts.read().score_buckets
    zero = SCORE_BOUNDS.index(0.0)
    assert (buckets[0], buckets[zero], buckets[zero + 1], buckets[-1]) == (2, 1, 1, 1)
    assert counts.read().totals == Totals(samples=5, outliers=2)
    assert counts.read().score_sum == -0.6 - 0.5 + 0.0 + 0.01 + 0.7


def test_totals_include_their_own_rows():
    counts = Counts()
    assert counts.add(Verdict(np.array([0.1, -0.1]), 0.0)) == Totals(2, 1)
    assert counts.add(Verdict(np.array([-0.2]), 0.0)) == Totals(3, 2)


def test_durations_are_kept_by_route_and_status():
    counts = Counts()
    counts.observe("/predict", "2xx", DURATION_BOUNDS[0])
    counts.observe("/predict", "2xx", 100.0)
    counts.observe("/predict", "4xx", 0.0)
    requests = counts.read().requests
    fine = requests["/predict", "2xx"]
    assert (fine.count, fine.buckets[0], fine.buckets[-1]) == (2, 1, 1)
    assert requests["/predict", "4xx"].count == 1


def test_no_update_is_lost_between_threads():
    counts = Counts()

    def work(_):
        counts.add(Verdict(np.array([0.1, -0.1]), 0.0))
        counts.observe("/predict", "2xx", 0.001)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(4000)))
    snapshot = counts.read()
    assert snapshot.totals == Totals(8000, 4000)
    assert sum(snapshot.score_buckets) == 8000
    assert snapshot.requests["/predict", "2xx"].count == 4000
