"""Make the files of tests/data/forests: pickles of several scikit-learn versions and their scores.

Run it as `python tests/data/forests/make.py`. Each version is installed into a temporary
environment of its own, so it needs a package index and takes a few minutes. The files are
committed; run it again to add a version.
"""

import pickle
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

FOLDER = Path(__file__).parent

# scikit-learn and the numpy it lived with: numpy 2 renamed the modules that pickles name.
VERSIONS = {
    "1.5.2": "1.26.4",
    "1.6.1": "1.26.4",
    "1.7.2": "2.2.6",
    "1.8.0": "2.3.5",
    "1.9.1": "2.4.6",
}


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for version, numpy in VERSIONS.items():
        with tempfile.TemporaryDirectory() as place:
            venv.create(place, with_pip=True)
            python = Path(place) / "bin" / "python"
            wanted = [f"scikit-learn=={version}", f"numpy=={numpy}"]
            subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
            subprocess.run([python, __file__, version], check=True)
        print(f"scikit-learn {version} with numpy {numpy}")


def write_forests(version):
    """Fit, pickle and score with the scikit-learn of this process."""
    import numpy as np
    from sklearn.ensemble import IsolationForest

    rng = np.random.default_rng(16)
    skewed = rng.lognormal(size=(500, 2))
    table = rng.normal(size=(400, 6)).round(1)
    missing = np.where(rng.random(table.shape) < 0.1, np.nan, table)
    forests = {
        "plain": (skewed, IsolationForest(max_samples=64)),
        "columns": (table, IsolationForest(max_samples=32, max_features=0.5, bootstrap=True)),
        "missing": (missing, IsolationForest(max_samples=0.1, contamination=0.1)),
    }
    if version.startswith("1.5."):  # it refused missing values
        del forests["missing"]
    for name, (X, forest) in forests.items():
        forest.set_params(n_estimators=3, random_state=16).fit(X)
        file = FOLDER / f"{name}-{version}.pickle"
        file.write_bytes(pickle.dumps(forest, protocol=5))
        rows = np.concatenate([X[:100], 5 * X[100:120], np.zeros_like(X[:1])])
        np.savez_compressed(
            file.with_suffix(".npz"),
            rows=rows,
            score_samples=forest.score_samples(rows),
            decision_function=forest.decision_function(rows),
        )


if __name__ == "__main__":
    write_forests(sys.argv[1]) if len(sys.argv) > 1 else main()
