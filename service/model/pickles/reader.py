"""Read an IsolationForest from a file of pickle or joblib, without either and without scikit-learn.

The file may be malicious. `interpreter` runs it with the parts below, which stand for the classes
and functions that a forest is made of: exact names, and none but these. What comes out has the
attributes that scoring needs, and `forest` reads it as it reads a fitted forest.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import count
from . import arrays
from .formats import MOST_BYTES, decompress
from .interpreter import BadPickle, Machine, Made, Part

_OLDEST = 1, 0


class _StandIn(Made):
    """Keeps the attributes of an object that are listed, and forgets the others."""

    keeps: tuple[str, ...] = ()

    def build(self, state: Any, machine: Machine) -> None:
        """Take over attributes."""
        for name, value in state.items():
            if type(value) is Part:
                raise BadPickle(f"its attribute {plain(name)} is the class {value.name}")
        for name in self.keeps:
            if name in state:
                kept = _values(state[name])
                machine.spend(_size(kept))
                setattr(self, name, kept)


class IsolationForest(_StandIn):
    """Stands for a fitted scikit-learn IsolationForest."""

    keeps = (
        "n_features_in_", "feature_names_in_", "_max_samples", "max_samples_", "offset_",
        "estimators_", "estimators_features_", "_decision_path_lengths",
        "_average_path_length_per_tree", "_sklearn_version",
    )  # fmt: skip


class ExtraTreeRegressor(_StandIn):
    """Stands for one tree of a forest."""

    keeps = ("tree_",)


class Tree(_StandIn):
    """Stands for the nodes of a tree."""

    keeps = ("nodes", "node_count")

    def __init__(self, n_features: Any, n_classes: Any, n_outputs: Any) -> None:
        super().__init__()
        self.n_features = n_features

    def __getstate__(self) -> dict[str, Any]:  # as scikit-learn's
        return {name: value for name, value in vars(self).items() if name in self.keeps}


class _Ignored(Made):
    """Stands for what no score depends on, such as a generator of random numbers."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()

    def build(self, state: Any, machine: Machine) -> None:
        """Take over nothing."""


def _values(found: Any) -> Any:
    """Return the numpy array of an array, or those in a list or tuple."""
    if type(found) in (list, tuple):
        return type(found)(map(_value, found))
    return _value(found)


def _value(found: Any) -> Any:
    return found.values if isinstance(found, arrays.Array) else found


def _size(found: Any) -> int:
    """Return the number of bytes of an array, or of those in a list or tuple."""
    items = found if type(found) in (list, tuple) else [found]
    return sum(item.nbytes for item in items if type(item) is np.ndarray)


def _no_call(*arguments: Any) -> Any:
    raise BadPickle("it calls a class that no forest calls")


_MAKES: dict[str, dict[str, Callable[..., Any]]] = {
    "sklearn.ensemble._iforest": {"IsolationForest": IsolationForest},
    "sklearn.tree._classes": {"ExtraTreeRegressor": ExtraTreeRegressor},
    "sklearn.tree._tree": {"Tree": Tree},
    "numpy": {"dtype": arrays.Type, "ndarray": _no_call, "memmap": _no_call},
    "numpy.core.multiarray": {"_reconstruct": arrays.reconstruct, "scalar": arrays.scalar},
    "numpy.core.numeric": {"_frombuffer": arrays.from_buffer},
    "joblib.numpy_pickle": {"NumpyArrayWrapper": arrays.JoblibArray},
    "_codecs": {"encode": arrays.encode},
    "numpy.random._pickle": {"__randomstate_ctor": _Ignored, "__bit_generator_ctor": _Ignored},
    "numpy.random._mt19937": {"MT19937": _Ignored},
}
_PARTS = {
    (spelling, name): Part(f"{module}.{name}", make)
    for module, makes in _MAKES.items()
    for name, make in makes.items()
    for spelling in {module, module.replace("numpy.core", "numpy._core")}  # renamed in numpy 2
}


def read_forest(content: bytes) -> tuple[IsolationForest, str]:
    """Return what stands for the forest of a model file, and a sentence about the file.

    Raises:
        BadPickle: it is no IsolationForest; the text says what it is, and what to do.
    """
    kind, pickled = decompress(content, MOST_BYTES)
    machine = Machine(pickled, _PARTS, _refuse)
    found = machine.run()
    if machine.at != len(pickled):
        raise BadPickle(f"it has {count(len(pickled) - machine.at, 'byte')} after its end")
    if type(found) is not IsolationForest:
        raise BadPickle(f"it holds {_describe(found)}")
    _check_version(vars(found).get("_sklearn_version"))
    writer = "joblib" if b"joblib.numpy_pickle" in pickled else "pickle"
    compressed = f", compressed with {kind}" if kind else ""
    return found, f"{writer}, protocol {pickled[1]}{compressed}"


def plain(text: object) -> str:
    """Return a text, which a damaged file may have made up, as one short ASCII line."""
    return ascii(" ".join(str(text).split())[:200])[1:-1]


def _check_version(version: Any) -> None:
    if type(version) is not str:
        return
    numbers = version.split(".")[:2]
    if all(map(str.isdecimal, numbers)) and tuple(map(int, numbers)) < _OLDEST:
        raise BadPickle(
            f"it was made by scikit-learn {plain(version)}, and 1.0 or newer is read; fit it again"
        )


def _describe(found: Any) -> str:
    """Return what a file holds in place of a forest, and what to do."""
    items = found.items() if type(found) is dict else enumerate(_sequence(found))
    for place, item in items:
        if type(item) is IsolationForest:
            key = place if type(place) is int else repr(plain(place))
            where = f"the_{type(found).__name__}[{key}]"
            return (
                f"a {type(found).__name__} with the forest in it; save the forest alone: "
                f"pickle.dump({where}, file)"
            )
    name = "numpy array" if isinstance(found, arrays.Array) else type(found).__name__
    return f"a {name}, not an IsolationForest; {_FIT}"


def _sequence(found: Any) -> Any:
    return found if type(found) in (list, tuple) else ()


_FIT = "fit an IsolationForest and save that"

_FOREIGN = {
    "sklearn.pipeline": "a Pipeline; fit the IsolationForest on the raw columns, without the steps "
    "before it (trees need no scaling), and save that",
    "sklearn.model_selection": "a search for parameters; save its best_estimator_, if that is an "
    "IsolationForest",
    "pyod.models.iforest": "an IForest of PyOD; save its detector_, which is scikit-learn's forest",
    "joblib.numpy_pickle": "arrays of an old joblib; load it with that joblib, and save it again "
    "with pickle.dump",
    "sklearn.externals": "parts of a scikit-learn before 1.0; fit it again",
    "sklearn.ensemble.iforest": "a forest of a scikit-learn before 1.0; fit it again",
    "cloudpickle": f"code that cloudpickle stored; {_FIT} with pickle.dump",
    "dill": f"code that dill stored; {_FIT} with pickle.dump",
}
"""What a file holds that names something in these modules, and what to do."""


def _refuse(module: str, name: str, outermost: Any) -> BadPickle:
    """Return the error about a name that is no part of a forest."""
    full = plain(f"{module}.{name}")
    if type(outermost) in (dict, list, tuple):
        kind = type(outermost).__name__
        return BadPickle(f"it holds a {kind} with {full} in it; save the fitted forest alone")
    if type(outermost) is IsolationForest:
        mend = "delete the attribute that holds it, and save the forest again"
        return BadPickle(f"it holds {full}, which is not part of an IsolationForest; {mend}")
    for prefix, sentence in _FOREIGN.items():
        if f"{module}.".startswith((f"{prefix}.", f"{prefix}._")):
            return BadPickle(f"it holds {sentence}")
    if outermost is None and module.split(".", maxsplit=1)[0] == "sklearn" and "." not in name:
        return BadPickle(f"it holds a {plain(name)}, not an IsolationForest; {_FIT}")
    return BadPickle(f"it holds {full}, which is not part of an IsolationForest; {_FIT}")
