"""W3C Trace Context: read the header `traceparent`, or make one.

https://www.w3.org/TR/trace-context/ has the format: version, trace id, parent id and flags. The
service makes no spans and calls nobody, so it passes the header on unchanged.
"""

import os
import re

HEADER = b"traceparent"

# Version 00 ends with the flags; a later one may go on. Version ff, and ids of zeros, are invalid.
_FORM = re.compile(
    rb"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)

_KNOWN_FLAGS = 0x03  # sampled, and random trace id; others must not be passed on


def read_trace(value: bytes) -> str:
    """Return a traceparent of version 00; empty if the header is malformed and to be ignored.

    >>> read_trace(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    """
    found = _FORM.fullmatch(value)
    if found is None or (found[1] == b"00" and found[4] is not None):
        return ""
    return f"00-{found[2].decode()}-{int(found[3], 16) & _KNOWN_FLAGS:02x}"


def new_trace() -> str:
    """Return a traceparent of a new trace, which is not sampled."""
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-00"


def trace_field(trace: str) -> dict[str, str]:
    """Return the field of a log line: the 32 hexadecimal digits of the trace; none without one."""
    return {"trace_id": trace[3:35]} if trace else {}
