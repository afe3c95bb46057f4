"""A small part of the stress tests; `make nightly` runs them all, and in full."""

import pytest

from tests.stress.__main__ import run, stress_crafted, stress_state, stress_torn
from tests.support.tally import Tally


@pytest.mark.parametrize(
    ("section", "share"), [(stress_crafted, 0.0005), (stress_torn, 0.05), (stress_state, 0.05)]
)
def test_a_few_hostile_or_damaged_files_do_no_harm(section, share):
    tally = run(section, share)
    assert tally.faults == []
    assert tally.held == tally.tried > 0


def test_a_section_that_was_not_tried_is_not_reported_as_held():
    assert Tally("nothing", missing="nginx").verdict == "not tried: no nginx"
    tally = Tally("something")
    tally.note("one", "")
    assert tally.verdict == "held"
    tally.note("another", "it broke")
    assert tally.verdict == "BROKEN"
