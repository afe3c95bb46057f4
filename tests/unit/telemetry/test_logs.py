import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time

from service.telemetry.logs import render_plain, tell_ready
from tests.support.running import ROOT, free_port

KEY = "0123456789abcdef"


def start_on_a_terminal(model, port, **variables):
    """Start a service on a terminal; return its process and the terminal."""
    terminal, its = pty.openpty()
    environment = os.environ | {
        "ISOSERVE_MODEL": str(model),
        "ISOSERVE_PORT": str(port),
        "ISOSERVE_STATE_DIR": str(model.parent / "state"),
        "ISOSERVE_DRAIN_SECONDS": "0",
        **variables,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stdout=its, stderr=its
    )
    os.close(its)
    return process, terminal


def read_until(terminal, text, seconds=60):
    """Read what a terminal shows until a text appears."""
    shown, limit = "", time.monotonic() + seconds
    while text not in shown and time.monotonic() < limit:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 9999).decode()
    return shown.replace("\r\n", "\n")


def test_a_person_is_told_what_to_do_when_the_service_answers(folder, write_card):
    write_card()
    port = free_port()
    process, terminal = start_on_a_terminal(folder / "model.pickle", port, ISOSERVE_API_KEY=KEY)
    try:
        shown = read_until(terminal, "Ctrl-C")
        command = re.search(r"^try: +(curl .*)$", shown, re.MULTILINE)[1]
        answer = subprocess.run(
            ["sh", "-c", f"ISOSERVE_API_KEY={KEY}; {command}"], capture_output=True, check=True
        )
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(terminal)
    assert f"ready:  http://127.0.0.1:{port}\n" in shown
    assert f"docs:   http://127.0.0.1:{port}/docs\n" in shown
    assert json.loads(answer.stdout)["data"]["ndarray"] == [0, 1]  # at once, and a normal row first
    assert KEY not in shown
    assert '{"' not in shown.replace(command, "")  # no JSON, and no news about worker processes
    assert "orker" not in shown


def test_a_program_gets_the_ready_line_as_json_and_once(folder, serve):
    service = serve(folder / "model.pickle", workers=3)
    ready, limit = [], time.monotonic() + 20
    while not ready and time.monotonic() < limit:
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
        ready = [line for line in lines if line["event"] == "ready"]
        time.sleep(0.1)
    url = f"http://127.0.0.1:{service.port}"
    assert [(line["url"], line["docs"]) for line in ready] == [(url, f"{url}/docs")]


def test_a_command_for_very_many_columns_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    tell_ready("http://x", [str(j) for j in range(500)], [[0.0] * 500])
    assert capsys.readouterr().out.split() == [
        "ready:", "http://x", "docs:", "http://x/docs", "stop:", "Ctrl-C",
    ]  # fmt: skip


def test_columns_with_quotes_and_missing_values_make_a_command_that_can_be_pasted(
    monkeypatch, capsys
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    tell_ready("http://x", ["it's", '"$(id)"'], [[1.0, None]], ['"X-API-Key: $KEY"'])
    command = re.search(r"^try: +curl (.*)$", capsys.readouterr().out, re.MULTILINE)[1]
    words = subprocess.run(
        ["sh", "-c", f"KEY=k; printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words[:3] == ["http://x/predict", "-H", "X-API-Key: k"]
    message = {"data": {"names": ["it's", '"$(id)"'], "ndarray": [[1.0, None]]}}
    assert json.loads(words[-1]) == message


def test_a_plain_line_cannot_control_a_terminal():
    line = {
        "event": "a path \x1b[2J\r", "level": "warning", "timestamp": "2026-01-31T12:00:00.5Z",
        "logger": "isoserve", "path": "/\x1b]0;x\x07", "exception": "Traceback\n  x\x1b[31m",
    }  # fmt: skip
    text = render_plain(None, "", dict(line))
    assert text.isprintable() or {one for one in text if not one.isprintable()} == {"\n"}
    assert text.startswith("12:00:00 warning a path \\x1b[2J")
    assert text.endswith("Traceback\n  x\\x1b[31m")


SCRIPT = """
import logging, os, sys
from service.telemetry.logs import configure_logs, flush_logs
configure_logs("INFO", in_thread=True)
log = logging.getLogger("tests")
"""


def run(code, **more):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT + code],
        capture_output=True,
        timeout=30,
        check=False,
        **more,
    )


def test_lines_of_this_process_and_its_forks_are_written_before_they_end():
    code = """
log.info("first")
if not os.fork():
    log.info("child")
    flush_logs()
    os._exit(0)
os.wait()
log.info("last")
"""
    lines = [json.loads(line)["event"] for line in run(code).stdout.splitlines()]
    assert (sorted(lines[:2]), lines[2:]) == (["child", "first"], ["last"])


def test_a_stalled_reader_delays_nothing_and_learns_how_many_lines_were_dropped():
    code = """
for number in range(5000):
    log.info("x" * 200)
sys.stderr.write("done\\n")
sys.stderr.flush()
sys.stdin.read()
log.info("after")
flush_logs()
"""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", SCRIPT + code], **pipes) as process:
        assert process.stderr.readline() == b"done\n"  # nobody has read anything yet
        seen = []
        reading = threading.Thread(target=lambda: seen.extend(process.stdout))
        reading.start()
        process.stdin.close()
        reading.join(20)
    events = [json.loads(line)["event"] for line in seen]
    dropped = sum(int(event.split()[0]) for event in events if "lines were dropped" in event)
    assert dropped > 0
    assert dropped + sum(event in ("x" * 200, "after") for event in events) == 5001
