import os

import pytest

from service.rows import ODD
from service.state.files import quarantined
from service.state.odd_cells import FILE_NAME, OddCells


@pytest.fixture
def odd(tmp_path):
    return OddCells(["a", "b"], tmp_path)


def counted(odd):
    """Return the counts that are not 0."""
    return {key: number for key, number in odd.read().items() if number}


def test_counts_are_kept_by_column_and_kind(odd):
    assert odd.read() == {(column, kind): 0 for column in "ab" for kind in ODD}
    odd.add([(0, 0, 2), (1, 2, 1)])
    odd.add([(0, 0, 1)])
    assert counted(odd) == {("a", "out_of_range"): 3, ("b", "missing"): 1}


def test_counts_outlive_a_restart_and_add_up_over_processes(odd, tmp_path):
    odd.add([(0, 1, 1)])
    if not os.fork():
        odd.add([(0, 1, 5)])
        os._exit(0)
    os.wait()
    odd.add([(0, 1, 1)])
    assert counted(odd) == counted(OddCells(["a", "b"], tmp_path)) == {("a", "unknown"): 7}


def test_counts_of_other_columns_are_set_aside(odd, tmp_path):
    odd.add([(0, 1, 1)])
    assert counted(OddCells(["a", "c"], tmp_path)) == {}
    assert len(quarantined(tmp_path / FILE_NAME)) == 1


def test_damaged_counts_are_never_used(odd, tmp_path):
    odd.add([(0, 0, 3)])
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    place = content.index((3).to_bytes(8, "little"), 4096)
    content[place] ^= 4
    path.write_bytes(content)
    assert counted(OddCells(["a", "b"], tmp_path)) == {}
    assert len(quarantined(tmp_path / FILE_NAME)) == 1
