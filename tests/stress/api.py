"""Hold the OpenAPI document against a running service, with requests that schemathesis makes up.

    python -m tests.stress.api        2,000 requests a route, most of an hour
    python -m tests.stress.api 100    100 requests a route

Making them up takes longer than answering them, so each processor does it for some of the routes.

A tenth as many go to a service that asks for a key and has the admin's routes. A request that the
document allows may still be refused: that a name is not the model's, or that a shape does not fit
its values, no schema can say.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.running import serving

ROOT = Path(__file__).parents[2]
KEY, TOKEN = "a key for nothing but tests", "a token for nothing but tests"

# What may be said to a request that the document does not allow; 414 and 431 where it is very long.
REFUSALS = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 404, 405, 409, 414, 415, 431]
"""

# What schemathesis sends where the document names one of these ways to open a door.
SECRETS = f"""
[auth.openapi.key]
api_key = "{KEY}"
[auth.openapi.bearer]
bearer = "{KEY}"
[auth.openapi.admin]
bearer = "{TOKEN}"
"""


def main(cases: str = "2000") -> int:
    """Serve the sample model, let schemathesis loose on it, and return its exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = [sys.executable, "-m", "training.train", "--save_path", str(folder)]
        subprocess.run(train, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (folder / "schemathesis.toml").write_text(REFUSALS)
        plain = try_out(folder, int(cases))
        (folder / "schemathesis.toml").write_text(REFUSALS + SECRETS)
        locked = try_out(folder, max(1, int(cases) // 10), api_key=KEY, admin_token=TOKEN)
        return plain or locked


def try_out(folder: Path, cases: int, **settings: str) -> int:
    """Try a service with these settings."""
    kind = "-".join(["service", *settings])
    print(f"\n== {kind}: {cases:,} requests a route", flush=True)
    with serving(folder / "model.pickle", folder / f"{kind}.log", **settings) as service:
        document = folder / "openapi.json"
        document.write_bytes(service.request("GET", "/openapi.json", headers={"X-API-Key": KEY})[1])
        paths, at_once = list(json.loads(document.read_bytes())["paths"]), os.cpu_count() or 1
        command = [
            Path(sys.executable).with_name("st"),
            "run",
            document,
            f"--url=http://127.0.0.1:{service.port}",
            f"--max-examples={cases}",
            "--phases=examples,coverage,fuzzing",
            "--exclude-checks=positive_data_acceptance",
            "--continue-on-failure",
            "--warnings=off",
            "--seed=1",
        ]
        with ThreadPoolExecutor() as pool:
            parts = [paths[first::at_once] for first in range(at_once)]
            done = list(pool.map(lambda part: run(command, part, folder), filter(None, parts)))
    for one in done:
        print(one.stdout, flush=True)
    return max(one.returncode for one in done)


def run(command: list[object], paths: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let schemathesis try some paths."""
    chosen = [f"--include-path={path}" for path in paths]
    return subprocess.run(
        [*map(str, command), *chosen], cwd=folder, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
