"""Make the files of tests/data/forests: forests of many scikit-learn versions and their scores.

    python tests/data/forests/make.py [VERSION ...]

Each version is installed into a temporary environment of its own, with the Python and the numpy of
its time, and fits, saves and scores there. So this needs a package index, the Pythons of VERSIONS
(from PATH or pyenv) and some minutes. The files are committed; run it again to add a version.
"""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent

# scikit-learn: Python and numpy. numpy 2 renamed the modules that pickles name.
VERSIONS = {
    "1.0.2": ("3.10", "1.26.4"),
    "1.2.2": ("3.11", "1.26.4"),
    "1.3.2": ("3.11", "1.26.4"),
    "1.4.2": ("3.11", "1.26.4"),
    "1.5.2": ("3.12", "1.26.4"),
    "1.6.1": ("3.12", "2.1.3"),
    "1.7.2": ("3.13", "2.2.6"),
    "1.8.0": ("3.13", "2.3.5"),
    "1.9.1": ("3.12", "2.4.6"),
}


def find_python(version):
    """Return a Python of a version, from PATH or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*pyenv.glob(f"{version}.*/bin/python"), shutil.which(f"python{version}")]
    return next(filter(None, found))


def main(versions):
    for version in versions:
        python, numpy = VERSIONS[version]
        with tempfile.TemporaryDirectory() as place:
            subprocess.run([find_python(python), "-m", "venv", place], check=True)
            own = Path(place) / "bin" / "python"
            wanted = [f"scikit-learn=={version}", f"numpy=={numpy}", "joblib"]
            subprocess.run([own, "-m", "pip", "install", "--quiet", *wanted], check=True)
            subprocess.run([own, __file__, "write", version], check=True)
        print(f"scikit-learn {version} with numpy {numpy} on Python {python}")


def probe(np):
    """Return logarithms and powers, whose last bit depends on the processor and on numpy."""
    return np.concatenate([np.log(np.arange(2.0, 66.0)), np.power(2.0, -np.linspace(0, 1, 64))])


def write_forests(version):
    """Fit, save and score with the scikit-learn of this process."""
    import joblib
    import numpy as np
    from sklearn.ensemble import IsolationForest

    rng = np.random.default_rng(16)
    skewed = rng.lognormal(size=(200, 2))
    table = rng.normal(size=(200, 4)).round(1)
    gaps = np.where(rng.random(table.shape) < 0.2, np.nan, table)
    plain, columns = f"plain-{version}.pickle", f"columns-{version}.joblib"
    forests = {
        plain: (skewed, IsolationForest(max_samples=16)),
        columns: (table, IsolationForest(max_samples=12, max_features=0.5, bootstrap=True)),
        f"gaps-{version}.joblib": (gaps, IsolationForest(max_samples=12, contamination=0.1)),
    }
    for name, (X, forest) in forests.items():
        forest.set_params(n_estimators=3, random_state=16)
        try:
            forest.fit(X)
        except ValueError:  # before 1.6 it took no missing values
            continue
        file = FOLDER / name
        if name == plain:
            file.write_bytes(pickle.dumps(forest, protocol=4))
        else:
            # As a table of pandas leaves them; pandas itself is not needed for it.
            forest.feature_names_in_ = np.array(["a", "b", "c", "é"], dtype=object)
            joblib.dump(forest, file, compress=0 if name == columns else 3)
            del forest.feature_names_in_
        rows = np.concatenate([X[:40], 5 * X[40:60], np.zeros_like(X[:1])])
        np.savez_compressed(
            file.with_suffix(".npz"),
            rows=rows.astype(np.float32),
            score_samples=forest.score_samples(rows.astype(np.float32)),
            decision_function=forest.decision_function(rows.astype(np.float32)),
            probe=probe(np),
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write_forests(sys.argv[2])
    else:
        main(sys.argv[1:] or VERSIONS)
