"""Which user of this machine has the other end of a connection.

Linux tells by its socket monitoring interface: sock_diag(7), and linux/inet_diag.h for the layout.
"""

import socket
import struct
from contextlib import suppress
from ipaddress import ip_address

Address = tuple[str, int]
"""An IP address and a port."""

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY, _REQUEST = 20, 1  # SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST
_ANY_STATE, _NO_COOKIE = 0xFFFFFFFF, b"\xff" * 8
_ESTABLISHED = 1

_HEAD = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ASK = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_PORTS = struct.Struct("!HH")  # source, destination
_ANSWER = struct.Struct("=BB2x48x4x4x4xI")  # family, state, socket, ..., user id

_PATIENCE = 1.0  # seconds; the kernel answers in microseconds


def owner(client: Address, server: Address) -> int | None:
    """Return the id of the user who owns the client's end of a connection to a server here.

    None if there is no such connection, it is closed, or the kernel does not tell.
    """
    with suppress(OSError, ValueError, struct.error):
        found = _ask(client, server)
        _, kind, *_ = _HEAD.unpack_from(found)
        if kind == _BY_FAMILY:
            _, state, user = _ANSWER.unpack_from(found, _HEAD.size)
            return int(user) if state == _ESTABLISHED else None
    return None


def _ask(client: Address, server: Address) -> bytes:
    source, target = ip_address(client[0]).packed, ip_address(server[0]).packed
    family = socket.AF_INET if len(source) == 4 else socket.AF_INET6
    ends = _PORTS.pack(client[1], server[1]) + source.ljust(16, b"\0") + target.ljust(16, b"\0")
    body = _ASK.pack(family, socket.IPPROTO_TCP, 0, _ANY_STATE) + ends + bytes(4) + _NO_COOKIE
    head = _HEAD.pack(_HEAD.size + len(body), _BY_FAMILY, _REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
        kernel.settimeout(_PATIENCE)
        kernel.sendto(head + body, (0, 0))
        return kernel.recv(4096)
