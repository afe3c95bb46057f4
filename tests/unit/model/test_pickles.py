"""What a model file may hold; the whole corpus goes through `make nightly`."""

import gzip
import pickle
import pickletools
import subprocess
import sys
import zlib

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesRegressor, IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.model.forest import unpack
from service.model.pickles import interpreter
from service.model.pickles.reader import read_forest
from service.model.scorer import compile_forest
from tests.stress.files import small_forest
from tests.support import hostile


def assert_same(content, forest, X):
    """Check that a file gives the scores of the forest, bit for bit, and return its kind."""
    found, kind = read_forest(content)
    scores = compile_forest(found).decision_function(X)
    assert np.array_equal(scores, compile_forest(forest).decision_function(X))
    return kind


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("pickler", [pickle.dumps, pickle._dumps], ids=["C", "Python"])
def test_a_pickled_forest_is_read(forest, samples, protocol, pickler):
    kind = assert_same(pickler(forest, protocol=protocol), forest, samples)
    assert kind == f"pickle, protocol {protocol}"


def test_an_optimized_pickle_is_read(forest, samples):
    assert_same(pickletools.optimize(pickle.dumps(forest, 5)), forest, samples)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_a_joblib_file_is_read(tmp_path, samples, compress, protocol):
    frame = pd.DataFrame(samples, columns=["mean", "Höhe"])
    forest = IsolationForest(n_estimators=2, random_state=16).fit(frame)
    joblib.dump(forest, tmp_path / "m", compress=compress, protocol=protocol)
    content = (tmp_path / "m").read_bytes()
    kind = assert_same(content, forest, samples)
    name = {0: "", 3: ", compressed with zlib"}.get(compress) if type(compress) is int else (
        f", compressed with {compress[0]}")  # fmt: skip
    assert kind == f"joblib, protocol {protocol}{name}"
    assert unpack(read_forest(content)[0]).names == ("mean", "Höhe")


def test_generators_and_numbers_of_numpy_in_a_forest_are_read(samples):
    forest = IsolationForest(
        n_estimators=np.int64(2), contamination=np.float64(0.1),
        random_state=np.random.RandomState(16),
    ).fit(samples)  # fmt: skip
    forest.note = {"columns": ["a"], 1: (2.5, None, b"x", 2**70), "values": np.arange(3)}
    assert_same(pickle.dumps(forest), forest, samples)


ALONE = """
import sys
sys.modules.update(dict.fromkeys(("sklearn", "scipy", "joblib", "pickle"), None))
from pathlib import Path
from service.model.file import load_model
print(load_model(Path(sys.argv[1])).scorer.decision_function([[1.0, 2.0]])[0])
"""


def test_nothing_of_scikit_learn_scipy_joblib_or_pickle_is_needed(tmp_path, forest):
    (tmp_path / "m.joblib").write_bytes(hostile.by_joblib(forest, 3))
    code = ALONE.replace(', "pickle"', "")  # numba's cache uses it
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.joblib"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) == compile_forest(forest).decision_function(np.array([[1.0, 2.0]]))


class Mine:
    """A class of the script that saves it."""


def saved(value):
    return pickle.dumps(value, 4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: b"", "it is empty; save the fitted forest"),
        (lambda f: b"forest", "it is not a pickle; save the fitted forest"),
        (lambda f: pickle.dumps(f, 0), "it is a pickle of protocol 0 or 1, and 2 to 5 are read"),
        (lambda f: b"\x80\x07.", "it is a pickle of protocol 7, and 2 to 5 are read"),
        (lambda f: saved(f)[:-100], "it ends in the middle; copy or save the whole file again"),
        (lambda f: saved(f) + b"x", "it has 1 bytes? after its end"),
        (lambda f: zlib.compress(b"x"), "it is not a pickle"),
        (lambda f: gzip.compress(saved(f))[:-50], "it ends in the middle; copy or save"),
        (lambda f: b"\x04\x22\x4d\x18", "with lz4, which is not read; write it again"),
        (
            lambda f: b"version https://git-lfs.github.com/spec/v1",
            "a Git LFS pointer.*git lfs pull",
        ),
        (lambda f: b"\n<!DOCTYPE html><html>", "an HTML page, perhaps in place of a download"),
        (lambda f: b"PK\x03\x04 schema.json", "a skops file; load it with skops.io.load"),
        (lambda f: b"PK\x03\x04", "it is a zip file; unpack it"),
        (lambda f: b"\x08\x0a\x12\x08skl2onnx", "it is an ONNX model; save the fitted forest"),
        (lambda f: b'{"format": 1}', "it is JSON, such as a model's card"),
        (
            lambda f: saved({"model": f}),
            r"a dict with the forest in it.*pickle.dump\(the_dict\['mod",
        ),
        (
            lambda f: saved([1, f]),
            r"a list with the forest in it.*pickle.dump\(the_list\[1\], file",
        ),
        (lambda f: saved({"scaler": StandardScaler(), "forest": f}), "a dict with sklearn.*alone"),
        (lambda f: saved(make_pipeline(StandardScaler(), f)), "a Pipeline; fit .*raw columns"),
        (lambda f: saved(ExtraTreesRegressor()), "a ExtraTreesRegressor, not an IsolationForest"),
        (lambda f: saved(StandardScaler()), "it holds a StandardScaler, not an IsolationForest"),
        (lambda f: saved(f.estimators_[0]), "it holds a ExtraTreeRegressor, not an"),
        (lambda f: saved(np.arange(3)), "it holds a numpy array, not an IsolationForest"),
        (lambda f: saved([1]), "it holds a list, not an IsolationForest; fit"),
        (lambda f: saved(Mine()), "Mine, which is not part of an IsolationForest"),
        (lambda f: b"\x80\x04\x82\x01.", "the instruction b'\\\\x82', which no forest needs"),
    ],
)
def test_each_other_file_has_a_sentence_with_the_mend(forest, make, words):
    with pytest.raises(ValueError, match=words):
        read_forest(make(forest))


def test_a_pipeline_is_never_mended_by_its_last_step(forest):
    with pytest.raises(ValueError, match="Pipeline") as refusal:
        read_forest(saved(make_pipeline(StandardScaler(), forest)))
    assert "last" not in str(refusal.value)


def test_a_forest_with_a_foreign_attribute_is_refused_with_the_mend(forest, samples):
    foreign = IsolationForest(n_estimators=1).fit(samples)
    foreign.scaler = StandardScaler()
    with pytest.raises(ValueError, match=r"StandardScaler.* not part .*delete the attribute"):
        read_forest(saved(foreign))


def test_a_forest_before_1_0_is_refused_with_its_version(forest):
    content = pickle.dumps(forest, 4).replace(b"\x8c\x051.9.1", b"\x8c\x060.24.2")
    with pytest.raises(ValueError, match=r"made by scikit-learn 0.24.2, and 1.0 or newer is read"):
        read_forest(content)


def test_error_messages_escape_control_characters_in_names(tmp_path):
    content = dict(hostile.handmade(tmp_path / "sentinel"))["os\n\x1b[31m.'system'"]
    with pytest.raises(ValueError, match=r"^it holds os \\x1b\[31m\.system, which is not"):
        read_forest(content)


def test_every_attack_is_refused(tmp_path):
    attacks = list(hostile.attacks(tmp_path / "sentinel"))
    assert len(attacks) > 200
    for name, content in attacks[::7]:
        with pytest.raises(ValueError, match=r"."):
            read_forest(content)
        assert not (tmp_path / "sentinel").exists(), name


STREAMS = dict(hostile.streams(small_forest()))


@pytest.mark.parametrize("name", STREAMS)
def test_arrays_that_are_not_what_they_say_are_refused(name):
    with pytest.raises(ValueError, match=r"."):
        unpack(read_forest(STREAMS[name])[0])


def test_the_depth_of_collections_is_bounded():
    with pytest.raises(ValueError, match="more than 100 collections, one in another"):
        read_forest(b"\x80\x04" + b"(" * 101 + b"N" + b"t" * 101 + b".")


def test_the_number_of_instructions_is_bounded(monkeypatch, forest):
    monkeypatch.setattr(interpreter, "MOST_INSTRUCTIONS", 100)
    with pytest.raises(ValueError, match="more than 100 instructions, too many trees"):
        read_forest(saved(forest))
