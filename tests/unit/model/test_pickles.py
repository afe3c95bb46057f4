"""What a pickle may hold; the whole corpus goes through `make nightly`."""

import pickle
import pickletools
import zlib

import joblib
import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from service.model.pickles import read_forest, scan
from tests.support import hostile


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("pickler", [pickle.dumps, pickle._dumps], ids=["C", "Python"])
def test_a_forest_survives_pickling_and_loading(forest, samples, protocol, pickler):
    content = pickler(forest, protocol=protocol)
    assert scan(content) > 100
    copy = read_forest(content)
    assert np.array_equal(copy.decision_function(samples), forest.decision_function(samples))


def test_an_optimized_pickle_is_accepted(forest):
    assert scan(pickletools.optimize(pickle.dumps(forest, 5)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"forest", "it is not a pickle"),
        (pickle.dumps(1, 2), "of protocol 2, not 4 or 5; write the forest with pickle.dump"),
        (pickle.dumps(1, 5)[:-1], "it is not a complete pickle"),
        (pickle.dumps(1, 5) + b"x", "it has 1 byte after its end"),
        (zlib.compress(b"x"), r"compressed \(zlib\).*joblib.load"),
        (b"\x80\x04\x82\x01.", "no forest has the instruction EXT1"),
        (b"\x80\x04Nr\xff\xff\xff\x7f.", "no forest has the instruction LONG_BINPUT"),
        (b"\x80\x04cos\nsystem\n.", "no forest has the instruction GLOBAL"),
    ],
)
def test_a_pickle_with_other_opcodes_is_refused_before_it_is_loaded(content, words):
    with pytest.raises(ValueError, match=words):
        scan(content)


@pytest.mark.parametrize("compress", [0, 3])
def test_a_joblib_file_is_refused_with_the_line_that_converts_it(tmp_path, forest, compress):
    joblib.dump(forest, tmp_path / "model.joblib", compress=compress)
    with pytest.raises(ValueError, match=r"python -c 'import joblib, pickle, sys; pickle.dump"):
        scan((tmp_path / "model.joblib").read_bytes())


def test_a_random_state_that_is_not_a_number_is_refused_with_a_remedy(samples):
    forest = IsolationForest(n_estimators=2, random_state=np.random.RandomState(16)).fit(samples)
    with pytest.raises(ValueError, match="give random_state an integer"):
        read_forest(pickle.dumps(forest, 5))


def test_error_messages_escape_control_characters_in_names(tmp_path):
    content = dict(hostile.handmade(tmp_path / "sentinel"))["os\n\x1b[31m.'system'"]
    with pytest.raises(ValueError, match=r"^it holds os \\x1b\[31m\.system, which is not"):
        read_forest(content)


def test_a_pickle_cannot_change_numpys_functions(tmp_path):
    """A pickle can set attributes of an allowed function; this one sets its defaults."""
    from numpy._core.numeric import _frombuffer  # a private name of numpy 2

    before = _frombuffer.__defaults__
    content = dict(hostile.handmade(tmp_path / "sentinel"))["defaults of numpy's function"]
    with pytest.raises(ValueError, match="it holds a function, not an IsolationForest"):
        read_forest(content)
    assert _frombuffer.__defaults__ == before


def test_every_attack_is_refused(tmp_path):
    attacks = list(hostile.attacks(tmp_path / "sentinel"))
    assert len(attacks) > 200
    for name, content in attacks[::7]:
        with pytest.raises(ValueError, match=r"."):
            scan(content)
            read_forest(content)
        assert not (tmp_path / "sentinel").exists(), name
