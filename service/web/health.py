"""The paths of health checks."""

import re

LIVENESS = frozenset({"/live", "/health/ping", "/v2/health/live"})
READINESS = frozenset(
    {"/ready", "/ping", "/health", "/health/status", "/api/v1.0/health/status", "/v2/health/ready"}
)
MODEL_READY = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/ready")


def asks_readiness(path: str) -> bool:
    """Return whether a path asks if the service, or a model, is ready for requests."""
    return path in READINESS or MODEL_READY.fullmatch(path) is not None
