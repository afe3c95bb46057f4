"""Ids for requests and predictions: random, not to be guessed, and cheap."""

import os
from collections import deque

_AT_ONCE = 256  # asking the system costs as much as all else, and lets another thread go first

_ready: deque[str] = deque()

os.register_at_fork(after_in_child=_ready.clear)  # no two processes give the same ids


def new_id() -> str:
    """Return 32 hexadecimal digits."""
    while True:
        try:
            return _ready.popleft()
        except IndexError:
            digits = os.urandom(16 * _AT_ONCE).hex()
            _ready.extend(digits[i : i + 32] for i in range(0, len(digits), 32))
