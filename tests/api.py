"""Hold the OpenAPI document against a running service, with requests that schemathesis makes up.

    python tests/api.py          2,000 requests a route, most of an hour
    python tests/api.py 100      100 requests a route, as CI does

A tenth as many go to a service that asks for a key and has the admin's routes. A request that the
document allows may still be refused: that a name is not the model's, or that a shape does not fit
its values, no schema can say.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from running import serving

ROOT = Path(__file__).parents[1]
KEY, TOKEN = "a key for nothing but tests", "a token for nothing but tests"

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
        plain = try_out(folder, int(cases))
        (folder / "schemathesis.toml").write_text(SECRETS)
        locked = try_out(folder, max(1, int(cases) // 10), api_key=KEY, admin_token=TOKEN)
        return plain or locked


def try_out(folder: Path, cases: int, **settings: str) -> int:
    """Try a service with these settings."""
    kind = "-".join(["service", *settings])
    print(f"\n== {kind}: {cases:,} requests a route", flush=True)
    with serving(folder / "model.pickle", folder / f"{kind}.log", **settings) as service:
        document = folder / "openapi.json"
        document.write_bytes(service.request("GET", "/openapi.json", headers={"X-API-Key": KEY})[1])
        return subprocess.run(
            [
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
            ],
            cwd=folder,
            check=False,
        ).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
