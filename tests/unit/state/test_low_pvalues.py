import os

import numpy as np

from service.state.files import quarantined
from service.state.low_pvalues import FILE_NAME, LowPValues


def test_rows_are_counted_by_level_outlive_a_restart_and_add_up_over_processes(tmp_path):
    low = LowPValues(tmp_path)
    assert low.read() == {0.01: 0, 0.001: 0}
    low.add(np.array([0.01, 0.0100001, 0.001, 0.0005]))
    if not os.fork():
        low.add(np.array([0.001]))
        os._exit(0)
    os.wait()
    assert low.read() == LowPValues(tmp_path).read() == {0.01: 4, 0.001: 3}


def test_a_damaged_file_is_never_used(tmp_path):
    LowPValues(tmp_path).add(np.full(7, 0.005))
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    content[content.index((7).to_bytes(8, "little"), 4096)] ^= 4
    path.write_bytes(content)
    assert LowPValues(tmp_path).read() == {0.01: 0, 0.001: 0}
    assert len(quarantined(path)) == 1
