"""A breath of the torture; `make torture` does all of it, and in full."""

import pytest

from tests.stress.__main__ import run, torture_crafted, torture_torn
from tests.support.tally import Tally


@pytest.mark.parametrize(("section", "share"), [(torture_crafted, 0.0005), (torture_torn, 0.05)])
def test_a_little_torture_is_borne(section, share):
    tally = run(section, share)
    assert tally.faults == []
    assert tally.held == tally.tried > 0


def test_what_was_not_tried_has_not_held():
    assert Tally("nothing", missing="nginx").verdict == "not tried: no nginx"
    tally = Tally("something")
    tally.note("one", "")
    assert tally.verdict == "held"
    tally.note("another", "it broke")
    assert tally.verdict == "BROKEN"
