"""Ids for requests and predictions: random, unguessable and cheap."""

import os
from collections import deque

_AT_ONCE = 256  # a call of the system costs as much as the rest, and switches threads

_ready: deque[str] = deque()

os.register_at_fork(after_in_child=_ready.clear)  # no two processes share ids


def new_id() -> str:
    """Return 32 hexadecimal digits."""
    while True:
        try:
            return _ready.popleft()
        except IndexError:
            digits = os.urandom(16 * _AT_ONCE).hex()
            _ready.extend(digits[i : i + 32] for i in range(0, len(digits), 32))
