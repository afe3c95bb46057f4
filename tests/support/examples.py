"""The number of examples per test: a tenth in `make test`, all in `make nightly`."""

import os

from hypothesis import settings

NIGHTLY = os.environ.get("ISOSERVE_TEST_NIGHTLY") == "1"


STRIDE = 1 if NIGHTLY else 3
"""A test that kills a process at each line or statement does so at every `STRIDE`th."""


def examples(number):
    """Return the number of examples to try, if the nightly run tries `number`."""
    return number if NIGHTLY else max(5, number // 10)


settings.register_profile("isoserve", max_examples=examples(100), deadline=None)
settings.load_profile("isoserve")
