"""Shorten the puid of a prediction, so that it fits where it is stored."""

from hashlib import blake2b


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


def digest(puid: str) -> str:
    """Return 32 hexadecimal digits that tell one puid from another."""
    return blake2b(puid.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
