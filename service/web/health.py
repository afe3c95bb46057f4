"""The paths of health checks, and what they answer."""

import re
from typing import Any

SELDON_PING = "/health/ping"
"""Seldon's wrapper answers it as HTML."""

HEALTH: dict[str, Any] = {
    "/live": {"live": True},
    "/v2/health/live": {"live": True},
    "/ready": {"ready": True},
    "/v2/health/ready": {"live": True, "ready": True},
    "/ping": "pong",
    "/health": "pong",
    SELDON_PING: "pong",
}
"""Path -> its answer: a dictionary as JSON, a text as it is."""

LIVENESS = frozenset({"/live", "/health/ping", "/v2/health/live"})
READINESS = frozenset(
    {"/ready", "/ping", "/health", "/health/status", "/api/v1.0/health/status", "/v2/health/ready"}
)
MODEL_READY = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/ready")


def asks_readiness(path: str) -> bool:
    """Return whether a path asks if the service, or a model, is ready for requests."""
    return path in READINESS or MODEL_READY.fullmatch(path) is not None
