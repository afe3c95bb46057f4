"""Hold the OpenAPI document against a running service, with requests that schemathesis makes up.

    python tests/api.py          2,000 requests a route, most of an hour
    python tests/api.py 100      100 requests a route, as CI does

A request that the document allows may still be refused: that a name is not the model's, or that a
shape does not fit its values, no schema can say.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from running import serving

ROOT = Path(__file__).parents[1]


def main(cases: str = "2000") -> int:
    """Serve the sample model, let schemathesis loose on it, and return its exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = [sys.executable, "-m", "training.train", "--save_path", str(folder)]
        subprocess.run(train, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        with serving(folder / "model.pickle", folder / "log.txt") as service:
            return subprocess.run(
                [
                    Path(sys.executable).with_name("st"),
                    "run",
                    f"http://127.0.0.1:{service.port}/openapi.json",
                    f"--max-examples={cases}",
                    "--phases=examples,coverage,fuzzing",
                    "--exclude-checks=positive_data_acceptance",
                    "--continue-on-failure",
                    "--warnings=off",
                    "--seed=1",
                ],
                cwd=folder,
                check=False,
            ).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
