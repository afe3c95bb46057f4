"""Requests with contradictory framing; each must get exactly one refusal or one answer.

A second answer would mean that a part of one request was read as another: smuggling.
"""

import re
import socket
import time
from http import HTTPStatus

BODY = b'{"data":{"ndarray":[[1,2]]}}'
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
UNREAD = b"DELETE /predict HTTP/1.1\r\nHost: x\r\n"
HIDDEN = b"GET /metadata HTTP/1.1\r\nHost: x\r\n\r\n"

ATTACKS = {
    "Transfer-Encoding and Content-Length": (HEAD + LENGTH + CHUNKED + b"\r\n" + CHUNKS, {400}),
    "two lengths": (HEAD + LENGTH + b"Content-Length: 0\r\n\r\n" + BODY, {400}),
    "two lengths in one": (HEAD + b"Content-Length: 28, 28\r\n\r\n" + BODY, {400}),
    "a length with a sign": (HEAD + b"Content-Length: +28\r\n\r\n" + BODY, {400}),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n" + BODY, {400}),
    "a space before the colon": (HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS, {400}),
    "a folded header": (HEAD + b"X-A: b\r\n c\r\n" + LENGTH + b"\r\n" + BODY, {400}),
    "two hosts": (HEAD + b"Host: y\r\n" + LENGTH + b"\r\n" + BODY, {400}),
    "no host": (HEAD.replace(b"Host: x\r\n", b"") + LENGTH + b"\r\n" + BODY, {400}),
    "bare line feeds": ((HEAD + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY, {400}),
    "an unknown coding": (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS, {501}),
    "a negative chunk": (HEAD + CHUNKED + b"\r\n-1c\r\n" + BODY + b"\r\n0\r\n\r\n", {400}),
    "a chunk in hexadecimal": (HEAD + CHUNKED + b"\r\n0x1c\r\n" + BODY + b"\r\n0\r\n\r\n", {400}),
    "a long header": (HEAD + b"X: " + b"a" * 9000 + b"\r\n\r\n", {431}),
    "200 headers": (HEAD + b"".join(b"X-%d: 1\r\n" % i for i in range(200)) + b"\r\n", {431}),
    "a request in a body": (HEAD + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, {400}),
    "a request behind a refused body": (HEAD + CHUNKED + b"\r\nzz\r\n" + HIDDEN, {400}),
    "a broken chunk that nobody reads": (UNREAD + CHUNKED + b"\r\nzz\r\n" + HIDDEN, {400}),
    "a host in a trailer that nobody reads": (
        UNREAD + CHUNKED + b"\r\n0\r\nHost: y\r\n\r\n", {400}),
    "a header that says where the service lies": (HEAD + b"SCRIPT_NAME: /x\r\n\r\n", {400}),
    "headers that say two schemes": (
        HEAD + b"X-Forwarded-Proto: https\r\nX-Forwarded-SSL: off\r\n\r\n", {400}),
    "a null byte in a header": (HEAD + b"X-A: a\0b\r\n" + LENGTH + b"\r\n" + BODY, {400}),
    "a lie about the version": (HEAD.replace(b"1.1", b"9.9") + LENGTH + b"\r\n" + BODY, {400}),
    "a forged log line": (HEAD + b'X-Request-ID: a"}\x1b[2J\r\n' + LENGTH + b"\r\n" + BODY, {400}),
}  # fmt: skip
PROTOCOLS = {
    b"/predict": b'"reason":"MICROSERVICE_',
    b"/v2/models/isoserve/infer": b'{"error":',
    b"/invocations": b'{"error_code":"',
}
"""A path of each protocol, and what its errors contain."""
for coding in (b"xchunked", b"gzip"):
    for path in PROTOCOLS:
        head = HEAD.replace(b"/predict", path)
        ATTACKS[f"{coding.decode()} to {path.decode()}"] = (
            head + b"Transfer-Encoding: %s\r\n\r\n" % coding, {501 if coding[:1] == b"x" else 400}
        )  # fmt: skip


def send(port, request, silence=3):
    """Send a request; return what arrives before the end or `silence` seconds of silence."""
    with socket.create_connection(("127.0.0.1", port), timeout=silence) as connection:
        connection.sendall(request)
        answer, limit = b"", time.monotonic() + 10
        try:
            while time.monotonic() < limit and (part := connection.recv(65536)):
                answer += part
        except (TimeoutError, ConnectionResetError):
            pass
    return answer


def fault_of(request, answer, statuses):
    """Return the fault of the answer to an attack, or an empty text."""
    codes = [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
    if not codes:
        return "no answer"
    if codes[0] not in statuses:
        return f"{codes[0]}, not {sorted(statuses)}"
    if len(codes) > 1:
        return f"{len(codes)} answers: {codes}"
    mark = PROTOCOLS.get(request.split(b" ")[1], PROTOCOLS[b"/predict"])
    ours = b"content-type: application/json" in answer.lower()  # else the server's own words
    if codes[0] >= 400 and ours and mark not in answer:
        return "not in the protocol's shape"
    phrase = HTTPStatus(codes[0]).phrase.encode()
    if not answer.startswith(b"HTTP/1.1 %d %s\r\n" % (codes[0], phrase)):
        return f"another phrase for {codes[0]}"
    return ""
