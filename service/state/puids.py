"""Shorten the puid of a prediction, so that it fits where it is stored."""

import re
from hashlib import blake2b

PUID_BYTES = 48
"""The most bytes of a puid in the record; a longer one is its beginning and a digest."""

_CUT = re.compile(r"(.{100})(~[0-9a-f]{32})", re.DOTALL)  # a storage key of the longest 200
_CUT_NAME = re.compile(rb".*~[0-9a-f]{32}", re.DOTALL)


def storage_key(puid: str, longest: int) -> str:
    """Return `puid` if it has at most `longest` characters, else its first half and a digest.

    >>> storage_key("a" * 300, 200) == "a" * 100 + "~" + digest("a" * 300)
    True
    """
    return puid if len(puid) <= longest else f"{puid[: longest // 2]}~{digest(puid)}"


def storage_bytes(puid: str, longest: int) -> bytes:
    """Return `puid` in UTF-8 if it has at most `longest` bytes and no NUL, else cut as above.

    The result has at most `longest` bytes and no NUL, because numpy drops those at the end.

    >>> storage_bytes("a" * 300, 48) == ("a" * 15 + "~" + digest("a" * 300)).encode()
    True
    """
    name = puid.encode("utf-8", "surrogatepass")
    if len(name) <= longest and 0 not in name:
        return name
    end = b"~" + digest(puid).encode()
    return name[: longest - len(end)].replace(b"\0", b"?") + end


def recorded_name(key: str, longest: int = PUID_BYTES) -> bytes:
    """Return what `storage_bytes` returns for the puid whose `storage_key` this is.

    >>> recorded_name(storage_key("a" * 300, 200)) == storage_bytes("a" * 300, PUID_BYTES)
    True
    """
    cut = _CUT.fullmatch(key)
    if not cut:
        return storage_bytes(key, longest)
    end = cut[2].encode()
    name = cut[1].encode("utf-8", "surrogatepass")
    return name[: longest - len(end)].replace(b"\0", b"?") + end


def is_cut(name: bytes) -> bool:
    """Return whether a recorded puid was too long, so that only its beginning is known.

    >>> is_cut(storage_bytes("a" * 300, PUID_BYTES)), is_cut(b"monday-1")
    (True, False)
    """
    return _CUT_NAME.fullmatch(name) is not None


def digest(puid: str) -> str:
    """Return 32 hexadecimal digits that tell one puid from another."""
    return blake2b(puid.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
