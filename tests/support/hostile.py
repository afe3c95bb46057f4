"""Malicious and damaged model files, made when a test needs them.

attacks(sentinel)      pickles that try to create the file `sentinel`, or to end the process
streams(forest)        joblib files and pickles whose arrays are not what they say
crafted(forest)        forests with values that scikit-learn cannot produce
bombs(forest)          small files that would take much time or memory
mutations(files, n)    real files with bytes changed, cut, moved and spliced
"""

import builtins
import codecs
import ctypes
import functools
import gzip
import importlib
import io
import lzma
import operator
import os
import pickle
import random
import runpy
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import timeit
import types
import webbrowser
from copy import copy, deepcopy
from pathlib import Path

import joblib
import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper
from sklearn.ensemble import IsolationForest
from sklearn.tree._tree import Tree

PROTOCOLS = range(6)


class Call:
    """Is pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def calls(sentinel):
    """Return calls for a pickle by name; a call that is executed creates `sentinel`."""
    touch, code = f"touch {sentinel}", f"open({str(sentinel)!r}, 'w')"
    nested = pickle.dumps(Call(os.system, touch))
    inside = sentinel.with_name("nested.pickle")
    inside.write_bytes(nested)
    return {
        "os.system": Call(os.system, touch),
        "os.popen": Call(os.popen, touch),
        "os.execvp": Call(os.execvp, "touch", ["touch", str(sentinel)]),
        "os._exit": Call(os._exit, 0),
        "os.kill": Call(os.kill, 0, signal.SIGTERM),
        "os.putenv": Call(os.putenv, "PATH", ""),
        "os.unlink": Call(os.unlink, str(inside)),
        "sys.exit": Call(sys.exit, 0),
        "sys.setrecursionlimit": Call(sys.setrecursionlimit, 10),
        "subprocess.call": Call(subprocess.call, ["touch", str(sentinel)]),
        "subprocess.Popen": Call(subprocess.Popen, touch, 0, None, None, None, None, None, True),
        "eval": Call(builtins.eval, code),
        "exec": Call(builtins.exec, code),
        "compile": Call(builtins.compile, code, "x", "exec"),
        "open": Call(builtins.open, str(sentinel), "w"),
        "io.open": Call(io.open_code, str(inside)),
        "__import__": Call(builtins.__import__, "antigravity"),
        "import_module": Call(importlib.import_module, "antigravity"),
        "getattr": Call(builtins.getattr, Call(importlib.import_module, "os"), "system"),
        "setattr": Call(builtins.setattr, IsolationForest, "fit", None),
        "breakpoint": Call(builtins.breakpoint),
        "input": Call(builtins.input),
        "runpy": Call(runpy.run_path, str(inside)),
        "timeit": Call(timeit.timeit, code),
        "pickle.loads": Call(pickle.loads, nested),
        "joblib.load": Call(joblib.load, str(inside)),
        "numpy.load": Call(np.load, str(inside), None, True),
        "numpy.save": Call(np.save, str(sentinel), 1),
        "numpy.memmap": Call(np.memmap, str(sentinel), "u1", "w+", 0, 8),
        "numpy.tofile": Call(np.savetxt, str(sentinel), [1]),
        "attrgetter": Call(operator.attrgetter("system"), os.system),
        "methodcaller": Call(operator.methodcaller("touch"), sentinel),
        "partial": Call(functools.partial, os.system, touch),
        "reduce": Call(functools.reduce, os.system, [touch]),
        "map": Call(builtins.list, Call(builtins.map, os.system, [touch])),
        "codecs": Call(codecs.decode, b"6f73", "hex"),
        "shutil": Call(shutil.copy, str(inside), str(sentinel)),
        "ctypes": Call(ctypes.CDLL, "libc.so.6"),
        "socket": Call(socket.create_connection, ("127.0.0.1", 9)),
        "tempfile": Call(tempfile.mkdtemp, "", "", str(sentinel.parent)),
        "webbrowser": Call(webbrowser.open, "file:///"),
        "types": Call(types.SimpleNamespace),
        "Path.touch": Call(Path.touch, sentinel),
        "bytearray": Call(builtins.bytearray, 2**34),
    }


def attacks(sentinel):
    """Yield (name, content) of pickles that contain more than a forest."""
    made = calls(sentinel)
    for name, call in made.items():
        for protocol in PROTOCOLS:
            yield f"{name}, protocol {protocol}", pickle.dumps(call, protocol)
    forest = IsolationForest(n_estimators=1).fit([[0.0], [1.0]])
    for name, call in made.items():
        hiding = deepcopy(forest)
        hiding.estimators_[0].splitter = call
        yield f"{name}, in a tree of a forest", pickle.dumps(hiding, 4)
        yield f"{name}, compressed by joblib", by_joblib(hiding, 3)
        hiding = deepcopy(forest)
        hiding.feature_names_in_ = np.array([call], dtype=object)
        yield f"{name}, as a column's name by joblib", by_joblib(hiding)
    yield from handmade(sentinel)


def by_joblib(value, compress=0):
    """Return what joblib.dump writes."""
    file = io.BytesIO()
    joblib.dump(value, file, compress=compress)
    return file.getvalue()


def handmade(sentinel):
    """Yield (name, content) of pickles that no pickler would write."""
    touch = text(f"touch {sentinel}")

    def asks(module, name, rest=b""):
        return b"\x80\x04" + text(module) + text(name) + b"\x93" + (rest or touch + b"\x85R") + b"."

    for module, name in (
        ("sklearn.ensemble._iforest", "IsolationForest.__init__.__globals__"),
        ("sklearn.ensemble._iforest", "IsolationForest.fit.__globals__.get"),
        ("sklearn.ensemble._iforest", "os.system"),
        ("sklearn.ensemble._iforest", "numbers.sys.modules"),
        ("sklearn.tree._classes", "ExtraTreeRegressor.__class__.__base__"),
        ("sklearn.tree._tree", "Tree.__reduce__"),
        ("sklearn", "os.system"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__class__"),
        ("numpy", "__builtins__"),
        ("numpy", "f2py"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy._core.multiarray", "fromfile"),
        ("numpy._core.numeric", "_frombuffer.__globals__"),
        ("numpy._core.numeric", "sys.modules"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy._core.numeric ", "_frombuffer"),
        ("numpy.core..numeric", "_frombuffer"),
        ("pandas", "read_pickle"),
        ("joblib.numpy_pickle", "NumpyArrayWrapper"),
        ("joblib", "load"),
        ("copyreg", "_reconstructor"),
        ("_codecs", "encode"),
        ("torch", "load"),
        ("", ""),
        ("os\n\x1b[31m", "system"),
        ("__main__", "__builtins__"),
    ):
        yield f"{module}.{name!r}", asks(module, name)
    posix = b"cposix\nsystem\n"
    yield "GLOBAL in protocol 4", b"\x80\x04" + posix + touch + b"\x85R."
    yield "GLOBAL without protocol", posix + b"(S'touch " + str(sentinel).encode() + b"'\ntR."
    yield "INST", b"(S'touch " + str(sentinel).encode() + b"'\niposix\nsystem\n."
    yield "OBJ", b"\x80\x04(" + posix + touch + b"o."
    yield "NEWOBJ_EX", b"\x80\x04" + posix + b")}\x92."
    yield "EXT1", b"\x80\x04\x82\x01)R."
    yield "EXT2", b"\x80\x04\x83\x01\x00)R."
    yield "EXT4", b"\x80\x04\x84\x01\x00\x00\x00)R."
    yield "PERSID", b"\x80\x04P1\n."
    yield "BINPERSID", b"\x80\x04K\x01Q."
    yield "NEXT_BUFFER", b"\x80\x05\x97."
    yield "READONLY_BUFFER", b"\x80\x05C\x01x\x98."
    yield "a memo place of 2**31", b"\x80\x04Nr\xff\xff\xff\x7f."
    yield "a second pickle behind the first", pickle.dumps(1, 4) + pickle.dumps(1, 4)
    yield "a length beyond the file", b"\x80\x04\x8e" + struct.pack("<q", 2**62) + b"x."
    defaults = b"\x80\x04\x8c\x13numpy._core.numeric\x8c\x0b_frombuffer\x93N"
    yield "defaults of numpy's function", (defaults + b"}" + text("__defaults__") + b"N\x85s\x86b.")
    yield (
        "an attribute of a class",
        asks("sklearn.ensemble._iforest", "IsolationForest", b"N}" + text("fit") + b"Ns\x86b"),
    )


def streams(forest):
    """Yield (name, content) of files of allowed names whose arrays are not what they say."""
    number, record = np.dtype("f8"), np.dtype([("a", "f8"), ("b", "O")])
    for name, shape, dtype in (
        ("more bytes than the file", (2**20,), number),
        ("2**45 bytes", (2**45,), np.dtype("u1")),
        ("2**124 bytes", (2**62, 2**62), number),
        ("a negative size", (-1,), number),
        ("a size in text", ("1",), number),
        ("sizes in an array", np.array([1]), number),
        ("no sizes", None, number),
        ("forty dimensions", (1,) * 40, number),
        ("a type in text", (1,), "f8"),
        ("no type", (1,), None),
        ("raw bytes", (1,), np.dtype("V8")),
        ("texts", (1,), np.dtype("U4")),
        ("times", (1,), np.dtype("M8[s]")),
        ("complex numbers", (1,), np.dtype("c16")),
        ("records with objects", (1,), record),
        ("objects that do not follow", (1,), np.dtype("O")),
    ):
        hiding = deepcopy(forest)
        wrapper = NumpyArrayWrapper(np.ndarray, shape, "C", dtype)
        hiding.estimators_features_ = [wrapper, *forest.estimators_features_[1:]]
        yield f"a joblib array of {name}", pickle.dumps(hiding, 4)
    nested = deepcopy(forest)
    nested.feature_names_in_ = np.array([np.array(["a"], dtype=object), "b"], dtype=object)
    yield "an object array in an object array by joblib", by_joblib(nested)
    nested.feature_names_in_ = np.array([["a"], ["b"]], dtype=object)
    yield "an object array of two dimensions by joblib", by_joblib(nested)
    plain = by_joblib(forest)
    yield "a pickle behind a joblib file", plain + pickle.dumps(1)
    yield "half of a compressed file", gzip.compress(plain)[:-200]
    yield "a compressed file in a compressed file", gzip.compress(gzip.compress(plain))
    yield "something behind a compressed file", gzip.compress(plain) + b"x"
    yield "a pointer", with_pointer(forest)
    for name, change in {
        "a type that is another later": lambda one: one.replace(b"\x8c\x02f8", b"\x8c\x02O8"),
        "a type of another order": lambda one: one.replace(b"\x8c\x01<", b"\x8c\x01?"),
        "a type of other fields": lambda one: one.replace(
            b"\x8c\x09threshold", b"\x8c\x09thresholt"
        ),
        "fields outside of a record": lambda one: one.replace(b"K\x30\x86", b"K\x7f\x86"),
        "smaller records": lambda one: one.replace(b"K\x40K\x01K\x10t", b"K\x3fK\x01K\x10t"),
    }.items():
        content = pickle.dumps(forest, 4)
        assert change(content) != content, name
        yield name, change(content)


def with_pointer(forest):
    """Return a pickle in which the type of an array becomes `object` after the array was made."""
    late = b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02V8\x89\x88\x87R"
    fields = b"}\x8c\x01a\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02O8\x89\x88\x87RK\x00\x86s"
    state = b"(K\x03\x8c\x01|N\x8c\x01a\x85" + fields + b"K\x08K\x01K\x3ftb"
    array = b"\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93"
    array += b"\x8c\x05numpy\x8c\x07ndarray\x93K\x00\x85C\x01b\x87R"
    array += b"(K\x01K\x01\x85r\xff\xff\x00\x000j\xff\xff\x00\x00"
    whole = b"\x80\x04" + late + b"r\xff\xfe\x00\x00" + state
    whole += array.replace(b"r\xff\xff\x00\x000j\xff\xff\x00\x00", b"j\xff\xfe\x00\x00")
    return whole + b"\x89C\x08" + b"A" * 8 + b"tb" + b"\x86" + pickle.dumps(forest, 4)[2:]


class Sharing:
    """Is pickled as a tree whose nodes are those of the trees before it."""

    def __init__(self, tree, state):
        self.tree, self.state = tree, state

    def __reduce__(self):
        return Tree, (self.tree.n_features, np.array([1]), 1), self.state


def with_shared_nodes(forest, n):
    """Return a forest of n trees that name one array of nodes."""
    shared, one = deepcopy(forest), forest.estimators_[0]
    state = one.tree_.__getstate__()
    shared.estimators_ = [copy(one) for _ in range(n)]
    for estimator in shared.estimators_:
        estimator.tree_ = Sharing(one.tree_, state)
    shared.estimators_features_ = forest.estimators_features_[:1] * n
    for name in ("_decision_path_lengths", "_average_path_length_per_tree"):
        setattr(shared, name, getattr(forest, name)[:1] * n)
    return shared


def bombs(forest):
    """Yield (name, content) of small files of allowed parts that take much time or memory."""
    head = b"\x80\x04"
    ndarray = text("numpy") + text("ndarray") + b"\x93"
    yield "an array of 2**45 bytes", head + ndarray + b"\x8a\x06" + bytes(5) + b"\x20\x85\x85R."
    deep = head + b"}" + b")\x94"
    for place in range(60):
        deep += b"h" + bytes([place]) + b"\x86\x94"
    yield "a key that takes years to hash", deep + b"Ns."
    yield "brackets, a million deep", head + b"]" * 10**6 + b"a" * (10**6 - 1) + b"."
    yield "ten million of nothing", head + b"(" + b"N" * 10**7 + b"t."
    yield "ten million empty dicts", head + b"(" + b"}" * 10**7 + b"t."
    yield "ten million marks", head + b"(" * 10**7
    parts = text("numpy") + b"\x94" + text("dtype") + b"\x94\x93\x94"
    yield "a million parts", head + b"(" + parts + b"h\x02h\x01\x85R" * 10**6 + b"t."
    number = [(n * (2**61 - 1)).to_bytes(10, "little") for n in range(2**16)]
    keys = b"".join(b"\x8a\x0a" + one + b"N" for one in number)
    yield "keys of one hash", head + b"}(" + keys + b"u."
    yield "a thousand times its size, gzip", gzip.compress(head + bytes(2**28), 1)
    yield "a thousand times its size, xz", lzma.compress(head + bytes(2**28), preset=0)
    yield "ten million of nothing, gzip", gzip.compress(head + b"(" + b"N" * 10**7 + b"t.", 1)
    yield "a dictionary of 4 GB, lzma", b"\x5d\x00\x00\xff\xff" + b"\xff" * 8 + bytes(100)
    yield "nodes of 20,000 trees in one array", pickle.dumps(with_shared_nodes(forest, 20_000), 4)


def text(value):
    """Return the pickle instruction for a string."""
    data = value.encode()
    return (
        b"\x8c" + bytes([len(data)]) + data
        if len(data) < 256
        else b"X" + struct.pack("<I", len(data)) + data
    )


def with_nodes(forest, change, n_features=None):
    """Return a copy of a forest whose first tree has its nodes changed by `change`."""
    copy = deepcopy(forest)
    estimator = copy.estimators_[0]
    state = estimator.tree_.__getstate__()
    nodes = change(state["nodes"].copy())
    tree = Tree(n_features or estimator.tree_.n_features, np.array([1]), 1)
    values = np.resize(state["values"], (len(nodes), 1, 1)).copy()
    tree.__setstate__({**state, "nodes": nodes, "values": values, "node_count": len(nodes)})
    estimator.tree_ = tree
    for name in ("_decision_path_lengths", "_average_path_length_per_tree"):
        first, *others = getattr(copy, name)
        setattr(copy, name, (np.resize(first, len(nodes)), *others))
    return copy


ONLY_IN_FILES = {"a method replaced"}
"""Crafted forests that are refused while their file is read, not by the checks of a forest."""


def crafted(forest):
    """Yield (name, forest) that would get wrong scores, or crash or hang the process.

    The first tree of `forest` has an inner node 1.
    """
    yield from _odd_nodes(forest)
    yield from _odd_attributes(forest)


def _odd_nodes(forest):

    def sets(field, value, node=0):
        def change(nodes):
            nodes[field][node] = value
            return nodes

        return with_nodes(forest, change)

    nodes = forest.estimators_[0].tree_.node_count
    leaf = int(np.flatnonzero(forest.estimators_[0].tree_.children_left < 0)[0])
    yield "left child far out of range", sets("left_child", 10**9)
    yield "left child just out of range", sets("left_child", nodes)
    yield "right child out of range", sets("right_child", 2**62)
    yield "negative child", sets("left_child", -5)
    yield "child 0 below the root", sets("left_child", 0, 1)
    yield "a node its own child", sets("left_child", 1, 1)
    yield "a cycle", sets("right_child", 1, leaf - 1)
    yield "both children one", sets("left_child", int(_right(forest)))
    yield "half a leaf", sets("left_child", -1)
    yield "a leaf with one child", sets("left_child", nodes - 1, leaf)
    yield "leaf marks of another kind", sets("left_child", -2, leaf)
    yield "column out of range", sets("feature", 10**6)
    yield "column just out of range", sets("feature", forest.n_features_in_)
    yield "negative column", sets("feature", -2)
    yield "a leaf with a column", sets("feature", 0, leaf)
    yield "threshold NaN", sets("threshold", np.nan)
    yield "threshold infinite", sets("threshold", np.inf)
    yield "no training rows", sets("n_node_samples", 0, leaf)
    yield "negative training rows", sets("n_node_samples", -7)
    yield "training rows that do not add up", sets("n_node_samples", 2**62)
    yield "missing values sent nowhere", sets("missing_go_to_left", 7)
    yield (
        "a node that nobody leads to",
        with_nodes(forest, lambda all_of: np.append(all_of, all_of[leaf])),
    )
    yield "a tree of 100 levels", with_nodes(forest, _chain)
    yield "a tree of one column more", with_nodes(forest, lambda all_of: all_of.copy(), 3)


def _odd_attributes(forest):
    def has(**attributes):
        copy = deepcopy(forest)
        vars(copy).update(attributes)
        return copy

    one = forest.estimators_[0]
    lengths, extra = forest._decision_path_lengths, forest._average_path_length_per_tree
    columns = forest.estimators_features_
    yield "never fitted", IsolationForest()
    yield "no trees", has(estimators_=[])
    yield "trees in a tuple", has(estimators_=tuple(forest.estimators_))
    yield "fewer trees than columns", has(estimators_=forest.estimators_[:1])
    yield "a tree without its estimator", has(estimators_=[one.tree_, *forest.estimators_[1:]])
    yield "a forest as a tree", has(estimators_=[IsolationForest(), *forest.estimators_[1:]])
    yield "a class as a tree", has(estimators_=[IsolationForest, *forest.estimators_[1:]])
    yield "columns of another forest", has(estimators_features_=[c + 5 for c in columns])
    yield "negative columns", has(estimators_features_=[c - 1 for c in columns])
    yield "half columns", has(estimators_features_=[c + 0.5 for c in columns])
    yield "no columns", has(estimators_features_=[c[:0] for c in columns])
    yield "too few path lengths", has(_decision_path_lengths=tuple(x[:-1] for x in lengths))
    yield "path lengths in a list", has(_decision_path_lengths=list(lengths))
    yield "path lengths NaN", has(_average_path_length_per_tree=tuple(x * np.nan for x in extra))
    yield (
        "path lengths of objects",
        has(_average_path_length_per_tree=tuple(x.astype(object) for x in extra)),
    )
    yield "path lengths huge", has(_average_path_length_per_tree=tuple(x + 1e308 for x in extra))
    yield "path lengths negative", has(_decision_path_lengths=tuple(-x for x in lengths))
    yield "10**12 columns", has(n_features_in_=10**12)
    yield "columns by name", has(n_features_in_="2")
    yield "no number of columns", has(n_features_in_=None)
    yield "10**400 samples", has(_max_samples=10**400)
    yield "no samples", has(_max_samples=0)
    yield "offset NaN", has(offset_=float("nan"))
    yield "offset huge", has(offset_=-1e300)
    yield "offset a text", has(offset_="0")
    yield "a method replaced", has(decision_function=IsolationForest)
    yield "two counts of samples", has(max_samples_=31)
    yield "few samples", has(_max_samples=2, max_samples_=2)
    yield (
        "a tree twice",
        has(
            estimators_=[one] * 2,
            estimators_features_=columns[:1] * 2,
            _decision_path_lengths=lengths[:1] * 2,
            _average_path_length_per_tree=extra[:1] * 2,
        ),
    )
    yield "levels of other nodes", has(_decision_path_lengths=tuple(x + 1 for x in lengths))
    yield "one name twice", has(feature_names_in_=np.array(["a", "a"], dtype=object))
    yield "a name of 10 MB", has(feature_names_in_=np.array(["a", "b" * 10**7], dtype=object))
    yield "a name that is no text", has(feature_names_in_=np.array(["a", "\ud800"], dtype=object))
    yield "names that are numbers", has(feature_names_in_=np.array([1, 2], dtype=object))
    yield "too many names", has(feature_names_in_=np.array(["a", "b", "c"], dtype=object))
    yield "names in a list", has(feature_names_in_=["a", "b"])


def _right(forest):
    return forest.estimators_[0].tree_.children_right[0]


def _chain(nodes):
    """Return the nodes of a tree that goes down 100 levels on its right."""
    chain = np.resize(nodes[:1], 201).copy()
    inner = np.arange(0, 200, 2)
    leaves = np.append(inner + 1, 200)
    chain["feature"], chain["threshold"], chain["missing_go_to_left"] = 0, 0.0, 0
    chain["left_child"], chain["right_child"] = -1, -1
    chain["left_child"][inner], chain["right_child"][inner] = inner + 1, inner + 2
    chain["feature"][leaves] = -2
    chain["n_node_samples"][leaves] = 1
    chain["n_node_samples"][inner] = 101 - inner // 2
    return chain


def mutations(contents, number, seed=16):
    """Yield `number` damaged copies of some files."""
    chance = random.Random(seed)
    for _ in range(number):
        content = bytearray(chance.choice(contents))
        chance.choice((_flip, _flip, _overwrite, _overwrite, _cut, _move, _splice))(
            content, chance, contents
        )
        yield bytes(content)


def _flip(content, chance, _):
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        content[chance.randrange(len(content))] = chance.randrange(256)


def _overwrite(content, chance, _):
    """Overwrite 8 bytes with a number that is likely to be out of range."""
    for _ in range(chance.choice((1, 4, 16))):
        number = chance.choice((0, -1, -2, 1, 2**31, 2**62, -(2**63), chance.randrange(2**16)))
        place = chance.randrange(0, len(content) - 8)
        content[place : place + 8] = struct.pack("<q", number)


def _cut(content, chance, _):
    del content[chance.randrange(len(content)) :]


def _move(content, chance, _):
    a, b, size = (chance.randrange(len(content)) for _ in range(3))
    content[b : b + size] = content[a : a + size]


def _splice(content, chance, contents):
    other = chance.choice(contents)
    content[chance.randrange(len(content)) :] = other[chance.randrange(len(other)) :]
