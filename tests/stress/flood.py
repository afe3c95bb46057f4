"""Send requests to a service at a fixed rate, whether it answers or not.

    python -m tests.stress.flood PORT RATE SECONDS ROWS

One process with one thread and epoll, so that it measures the service and not a queue of its own. A
request is sent when it is due, on a free connection or a new one. Prints JSON: a list of [time of
sending, status, seconds until the whole answer had arrived], the number of unanswered requests, and
the 99th percentile of the delay of sending, in seconds.
"""

import json
import re
import selectors
import socket
import sys
import time

MOST_CONNECTIONS = 400
IDLE = 2.0
"""Seconds after which a connection is not used again: the service may be closing it."""
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


def make_request(rows):
    """Return the bytes of a request with `rows` rows of two columns."""
    table = [[round(i % 97 / 7, 3), round(i % 89 / 9, 3)] for i in range(rows)]
    body = json.dumps({"data": {"ndarray": table}}).encode()
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Call:
    """A connection, and the request in progress on it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def begin(self, request):
        """Start to send a request."""
        self.sent, self.answer = time.perf_counter(), b""
        self.left = memoryview(request)
        self.send_more()

    def send_more(self):
        """Send as much as the socket takes."""
        try:
            self.left = self.left[self.socket.send(self.left) :]
        except BlockingIOError:
            pass
        except OSError:  # the service has answered and reads no more
            self.left = self.left[:0]

    def read_status(self):
        """Return the status of a complete answer, None before that, 0 if the connection ended."""
        try:
            part = self.socket.recv(2**20)
        except BlockingIOError:
            return None
        except OSError:
            part = b""
        self.answer += part
        head, found, body = self.answer.partition(b"\r\n\r\n")
        if found and len(body) >= int(LENGTH.search(head + b"\r\n")[1]):
            self.last = b"connection: close" in head.lower() or bool(self.left)
            return int(head[9:12])
        self.last = not part
        return None if part else 0


def flood(port, rate, seconds, request):
    """Send requests for `seconds`; return the answers, broken connections and delay."""
    poll, free, busy = selectors.DefaultSelector(), [], set()
    answers, broken, late = [], 0, []
    begun, number = time.perf_counter(), 0
    total = int(rate * seconds)
    while number < total or (busy and time.perf_counter() < begun + seconds + 30):
        now = time.perf_counter()
        due = begun + number / rate
        if number < total and now >= due:
            number += 1
            late.append(now - due)
            if not free and len(busy) >= MOST_CONNECTIONS:
                answers.append((now - begun, -1, 0.0))  # the client has too many connections
                continue
            call = free.pop() if free else None
            if call is None or now - call.ended > IDLE:
                call = Call(port)
            call.begin(request)
            busy.add(call)
            want = selectors.EVENT_READ | (selectors.EVENT_WRITE if call.left else 0)
            poll.register(call.socket, want, call)
            continue
        wait = due - now if number < total else 1
        for key, events in poll.select(min(max(wait, 0), 0.5)):
            call = key.data
            if events & selectors.EVENT_WRITE:
                call.send_more()
                if not call.left:
                    poll.modify(call.socket, selectors.EVENT_READ, call)
            if events & selectors.EVENT_READ and (status := call.read_status()) is not None:
                ended = call.ended = time.perf_counter()
                poll.unregister(call.socket)
                busy.discard(call)
                if status:
                    answers.append((call.sent - begun, status, ended - call.sent))
                else:
                    broken += 1
                if call.last:
                    call.socket.close()
                else:
                    free.append(call)
    late.sort()
    return {
        "answers": answers,
        "broken": broken + len(busy),
        "late": late[int(len(late) * 0.99)] if late else 0.0,
    }


if __name__ == "__main__":
    port, rate, seconds, rows = (float(number) for number in sys.argv[1:5])
    print(json.dumps(flood(int(port), rate, seconds, make_request(int(rows)))))
