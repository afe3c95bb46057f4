import contextlib
import socket
import time

import pytest

from service.web.connections import Connections
from service.web.in_flight import InFlightRequests
from service.web.request import Request


@pytest.fixture
def opened():
    """A listening socket, and a function that connects a client to it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def connect():
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            client.settimeout(5)
            server, _ = listener.accept()
            return client, stack.enter_context(server)

        yield listener.getsockname()[1], connect


def is_ended(client):
    client.settimeout(0.2)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False


def test_the_connections_that_are_silent_for_longest_are_ended(opened):
    port, connect = opened
    in_flight = InFlightRequests()
    connections = Connections(in_flight, port, most=2, timeout=30)
    first, second, third, fourth = (connect()[0] for _ in range(4))
    connections.end_silent(2)
    assert not any(map(is_ended, (first, second, third, fourth)))  # all are new
    used = Request("GET", "/", {}, client=first.getsockname(), started=time.perf_counter() + 60)
    in_flight.begin(used)
    in_flight.end(used)
    in_flight.begin(Request("GET", "/", {}, client=second.getsockname()))
    time.sleep(0.6)
    connections.end_silent(2)
    assert [is_ended(one) for one in (first, second, third, fourth)] == [False, False, True, True]


def test_only_a_client_that_does_not_read_its_answer_in_time_is_ended(opened):
    port, connect = opened
    in_flight, now = InFlightRequests(), time.monotonic()
    connections = Connections(in_flight, port, most=100, timeout=30)
    clients = [connect()[0] for _ in range(3)]
    for client, answered in zip(clients, (0.0, now - 29, now - 31), strict=True):
        in_flight.begin(Request("GET", "/", {}, client=client.getsockname(), answered=answered))
    clients[2].sendall(b"GET")
    connections.end_slow()
    assert [is_ended(one) for one in clients] == [False, False, True]


def test_all_but_busy_connections_end_when_the_service_stops(opened):
    port, connect = opened
    in_flight = InFlightRequests()
    connections = Connections(in_flight, port, most=100, timeout=30)
    clients = [connect()[0] for _ in range(3)]
    in_flight.begin(Request("GET", "/", {}, client=clients[1].getsockname()))
    connections.end_silent(0)
    time.sleep(0.6)
    connections.end_silent(0)
    assert [is_ended(one) for one in clients] == [True, False, True]


def test_a_connection_with_unread_bytes_and_other_sockets_stay(opened):
    port, connect = opened
    connections = Connections(InFlightRequests(), port, most=100, timeout=30)
    client, _ = connect()
    other_port = socket.create_server(("127.0.0.1", 0))
    outside = socket.create_connection(other_port.getsockname())
    pair = socket.socketpair()
    with other_port, outside, pair[0], pair[1]:
        connections.end_silent(0)
        client.sendall(b"GET")
        time.sleep(0.6)
        connections.end_silent(0)
        assert not any(map(is_ended, (client, outside, pair[0])))


def test_a_descriptor_that_is_used_again_is_another_connection(opened):
    port, connect = opened
    connections = Connections(InFlightRequests(), port, most=100, timeout=30)
    client, server = connect()
    connections.end_silent(0)
    number = server.fileno()
    client.close()
    server.close()
    time.sleep(0.6)
    again, server = connect()
    assert number in (again.fileno(), server.fileno())
    connections.end_silent(0)
    assert not is_ended(again)
