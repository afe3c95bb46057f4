"""How much of a test is done: a tenth by `make test`, the whole by `make nightly`."""

import os

from hypothesis import settings

NIGHTLY = os.environ.get("ISOSERVE_TEST_NIGHTLY") == "1"


def examples(number):
    """Return how many examples to try of those that the nightly run tries."""
    return number if NIGHTLY else max(5, number // 10)


settings.register_profile("isoserve", max_examples=examples(100), deadline=None)
settings.load_profile("isoserve")
