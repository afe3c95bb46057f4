"""Write log lines as JSON on standard output."""

import logging
import sys
from typing import Any

import structlog

_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
"""Steps for the lines of structlog and of the standard library alike."""


def configure_logs(level: str) -> None:
    """Write every log line of this process as one JSON object on standard output."""
    formatting = structlog.stdlib.ProcessorFormatter
    steps: list[Any] = [formatting.remove_processors_meta, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatting(foreign_pre_chain=_SHARED, processors=steps))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*_SHARED, formatting.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
