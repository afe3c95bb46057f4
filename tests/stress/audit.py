"""Check the libraries that serving needs for known vulnerabilities: python -m tests.stress.audit

If the database of vulnerabilities cannot be reached, print that and succeed.
"""

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements" / "serve.txt"


def main():
    command = [Path(sys.executable).with_name("pip-audit"), "--requirement", LOCK, "--disable-pip",
               "--no-deps", "--format", "json", "--progress-spinner", "off"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print("the database of known vulnerabilities cannot be reached: nothing was audited")
        return 0
    audited = [library for library in found if "vulns" in library]
    for library in audited:
        for fault in library["vulns"]:
            print(f"{library['name']} {library['version']}: {fault['id']}, "
                  f"fixed in {', '.join(fault['fix_versions']) or 'no version'}")  # fmt: skip
    if len(audited) < len(found):
        print(f"{len(found) - len(audited)} of {len(found)} libraries are not in the database "
              "that can be reached here: they were NOT audited")  # fmt: skip
    return any(library["vulns"] for library in audited)


if __name__ == "__main__":
    sys.exit(main())
