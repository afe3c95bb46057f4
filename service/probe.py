"""Ask the service of this environment whether it is ready: the image's health check.

    python -m service.probe

The exit code is 0 if it is. The imports are few, because this runs every few seconds.
"""

import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException

_SECONDS = 2


def reach(host: str) -> str:
    """Return the address at which this machine reaches a service that listens on `host`.

    >>> reach("0.0.0.0"), reach("[::1]")
    ('127.0.0.1', '::1')
    """
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound


def base_url(host: str, port: int) -> str:
    """Return the address of a service for this machine, as `http://127.0.0.1:8000`.

    >>> base_url("::", 8000)
    'http://[::1]:8000'
    """
    host = reach(host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def read_address(variables: Mapping[str, str]) -> tuple[str, int]:
    """Return host and port of a service with these variables, as `Settings` reads them.

    Kubernetes sets ISOSERVE_PORT=tcp://... for a Kubernetes service named "isoserve".
    """
    host = variables.get("ISOSERVE_HOST") or "127.0.0.1"
    port = variables.get("ISOSERVE_PORT", "")
    if not port or port.startswith("tcp://"):
        port = variables.get("PREDICTIVE_UNIT_HTTP_SERVICE_PORT") or "8000"
    return reach(host), int(port)


def ask(host: str, port: int) -> tuple[bool, str]:
    """Return whether the service at an address is ready, and its answer or why there is none."""
    connection = HTTPConnection(reach(host), port, timeout=_SECONDS)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        text = f"{answer.status} {answer.read().decode(errors='replace').strip()}"
    except (OSError, HTTPException) as error:
        return False, f"no answer from {host} port {port}: {error}"
    return answer.status == 200, text


def main() -> int:
    """Return 0 if the service is ready, else 1, and say why."""
    ready, text = ask(*read_address(os.environ))
    print(text)
    return int(not ready)


if __name__ == "__main__":
    sys.exit(main())
