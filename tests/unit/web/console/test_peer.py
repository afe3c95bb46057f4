import os
import socket
import subprocess
import sys

import pytest

from service.web.console.peer import owner

AS_NOBODY = (
    "import encodings.idna, os, socket, sys\n"  # before its files cannot be read any more
    "os.setuid(65534)\n"
    "client = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
    "print(client.getsockname()[1], flush=True)\n"
    "client.recv(1)\n"
)


@pytest.fixture(params=["127.0.0.1", "127.0.0.2", "::1"])
def listener(request):
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as listener:
        yield listener


def test_the_owner_of_a_connection_is_this_user(listener):
    server = listener.getsockname()[:2]
    with socket.create_connection(server) as client:
        assert owner(client.getsockname()[:2], server) == os.geteuid()


def test_what_is_no_connection_has_no_owner(listener):
    host, port = listener.getsockname()[:2]
    with socket.create_connection((host, port)) as client:
        address = client.getsockname()[:2]
        assert owner((host, 1), (host, port)) is None
        assert owner(address, (host, 1)) is None
        client.shutdown(socket.SHUT_WR)  # one that nobody holds any more would be root's
        assert owner(address, (host, port)) is None
    assert owner(("a name", 1), (host, port)) is None
    assert owner((host, 70_000), (host, port)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_owns_their_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = listener.getsockname()
        command = [sys.executable, "-c", AS_NOBODY, str(server[1])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            client = "127.0.0.1", int(other.stdout.readline())
            connection, _ = listener.accept()
            assert owner(client, server) == 65534
            connection.close()
