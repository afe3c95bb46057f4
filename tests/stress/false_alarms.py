"""Measure how often IsoserveMoreThanPromised fires on rows like the training rows.

    python -m tests.stress.false_alarms

A service is simulated: its true rate of p-values of at most 0.01 is drawn as the training table
draws it (a beta distribution), and each minute's rows with such a p-value are binomial. The bound
is that of monitoring/rules/recording.yml, looked at each minute.
"""

import numpy as np

LEVEL, DEVIATIONS = 0.01, 5
HELD = {"1h": (60, 1_000, 15), "1d": (1_440, 100, 60)}
"""Window: its minutes, the fewest rows, and the minutes for which the alert must hold."""

SERVICES, DAYS = 200, 50


def bound(n, m):
    """Return the most of `n` rows that are no alarm where p-values rest on `m` training rows."""
    return LEVEL * n + DEVIATIONS * np.sqrt(LEVEL * (1 - LEVEL) * n * (n + m + 1) / (m + 2))


def simulate(rng, window, rows_an_hour, m, services=SERVICES):
    """Return how many services of some days raised the alert at least once."""
    minutes, fewest, held = HELD[window]
    n = rows_an_hour * minutes / 60
    assert n >= fewest
    rank, fired = int(LEVEL * (m + 1)), 0
    for _ in range(services):
        rate = rng.beta(rank, m + 1 - rank)
        low = rng.poisson(rate * rows_an_hour / 60, DAYS * 1_440)
        sums = np.cumsum(low)
        above = sums[minutes:] - sums[:-minutes] > bound(n, m)
        runs = np.convolve(above, np.ones(held), "valid")
        fired += bool((runs == held).any())
    return fired


def main():
    rng, total, days = np.random.default_rng(22), 0, 0
    for window, rates in (("1h", (1_000, 10_000, 200_000)), ("1d", (5, 40, 900))):
        for rate in rates:
            for m in (300, 2_000, 20_000):
                fired = simulate(rng, window, rate, m)
                total, days = total + fired, days + SERVICES * DAYS
                print(f"{window}, {rate:,} rows an hour, {m:,} training rows: "
                      f"{fired} of {SERVICES} services of {DAYS} days")  # fmt: skip
    print(f"{total} services with a false alarm in {days:,} days of service")


if __name__ == "__main__":
    main()
