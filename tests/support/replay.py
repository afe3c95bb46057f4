"""Check that a change of the code changes nothing that a user sees.

    python -m tests.support.replay record FOLDER     in the checkout before the change
    python -m tests.support.replay compare FOLDER    in the checkout after it

`record` trains small models, serves them in four ways, sends some thousands of requests, one at a
time, and runs the commands. FOLDER then has the steps, the models, a state folder and the answers.
`compare` repeats the steps of FOLDER and prints how the answers differ. Its exit code is 1 if any
differs in more than error sentences, output of commands and logs.
"""

import contextlib
import difflib
import gzip
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.replay_steps import steps

MODELS = ("named", "gaps", "other", "wide")

VARIABLES = ("ISOSERVE_", "SELDON_", "PREDICT", "GUNICORN_", "INCLUDE_METRICS")
"""Prefixes of the variables that a service reads."""

WORDS = "words"
"""The kind of answers that consist of wording only."""

SENTENCE = re.compile(r'("(?:info|error|message)":)"((?:[^"\\]|\\.)*)"')
"""The sentence of an error in each protocol."""

CHANGING = [
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", "<time>"),
    (r"(?m)^(Date|Server): .*", r"\1: <some>"),
    (r"(?m)^(isoserve_\w+_seconds_(bucket\{.*le=\"[\d.]+\".*\}|sum\{.*\})) .*", r"\1 <n>"),
    (r"(?m)^(isoserve_state_\w+) .*", r"\1 <n>"),
    (r"(?m)^(isoserve_\w+\{.*route=\"/metrics\".*\}) .*", r"\1 <n>"),
    (r"(?m)^(isoserve_\w+_seconds_\w+\{.*route=\"other\".*\}) .*", r"\1 <n>"),  # includes /metrics
    (r"(?m)^took( +)[\d.]+ s", r"took\1<n> s"),
    (r'"ms": [\d.]+', '"ms": <n>'),
    (r"pid: \d+|\(pid:\d+\)|process \d+", "<pid>"),
    (r"(Listening at: \S+) \(\d+\)", r"\1 <pid>"),
    (r"request [0-9a-f]{16}\b", "request <id>"),
]
"""Patterns of text that differs between runs, and their replacements."""


def table(name):
    """Return a table to train on; for models that allow missing values some cells are empty."""
    chance = random.Random(name)
    lines = ["mean,sd,odd" if name in ("other", "wide") else "mean,sd"]
    for _ in range(400):
        cells = [f"{chance.lognormvariate(0, 1):.6g}" for _ in range(2)]
        if name in ("gaps", "other") and chance.random() < 0.2:
            cells[chance.randrange(2)] = ""
        odd = [str(int(chance.random() < 0.1))] if name in ("other", "wide") else []
        lines.append(",".join([*cells, *odd]))
    return "\n".join([*lines, ""])


class Player:
    """Runs the steps in a temporary folder; each of `answers` is [kind, title, answer]."""

    def __init__(self, folder):
        self.folder, self.work = folder, Path(tempfile.mkdtemp(prefix="replay-"))
        self.answers, self.last, self.process = [], ({}, b""), None
        for name in MODELS:
            (self.work / f"{name}.csv").write_text(table(name))

    def note(self, kind, title, text, sent=""):
        """Keep an answer, without text that differs between runs."""
        for real, shown in ((str(self.work), "{work}"), (str(Path.cwd()), "{checkout}")):
            text = text.replace(real, shown)
        for pattern, shown in CHANGING:
            text = re.sub(pattern, shown, text)
        if "/metrics" in title:
            text = re.sub(r"(?m)^Content-Length: .*", "Content-Length: <n>", text)
        made_up = r"\b([0-9a-f]{32}|(?<=X-Request-ID: )[0-9a-f]{16}|(?<=_id\": \")[0-9a-f]{16})\b"
        text = re.sub(made_up, lambda found: found[0] if found[0] in sent else "<id>", text)
        self.answers.append([kind, title, text])

    def environment(self, settings):
        """Return the environment of a process with these settings and no others."""
        ours = {name: text for name, text in os.environ.items() if not name.startswith(VARIABLES)}
        chosen = {name: text.replace("{work}", str(self.work)) for name, text in settings.items()}
        shown = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "TZ": "UTC"}
        return ours | shown | {"ISOSERVE_STATE_DIR": f"{self.work}/state"} | chosen

    def run(self, words, file, settings):
        """Run a command."""
        command = [sys.executable, "-m", *words.replace("{work}", str(self.work)).split()]
        done = subprocess.run(
            command, env=self.environment(settings), capture_output=True, text=True,
            timeout=600, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        title = " ".join([*(f"{name}={text}" for name, text in settings.items()), words])
        written = self.work / file
        written = written.read_text() if written.is_file() else ""
        self.note("commands", title, f"exit code {done.returncode}\n{written}")
        self.note(WORDS, title, done.stdout + done.stderr)

    def keep_models(self):
        """Use the models of the recording; while recording, save those just trained."""
        for name in MODELS:
            if not (self.folder / name).exists():
                shutil.copytree(self.work / name, self.folder / name)
            shutil.copytree(self.folder / name, self.work / name, dirs_exist_ok=True)

    def keep_state(self):
        """Start `kept` with the state folder of the recording; while recording, save it."""
        if not (self.folder / "state").exists():
            shutil.copytree(self.home / "state", self.folder / "state")
        shutil.copytree(self.folder / "state", self.work / "served/kept/state")

    def put(self, model):
        """Replace the served model file; `broken` is not a model."""
        for name in ("model.pickle", "model.json")[: 2 if self.card else 1]:
            path, new = self.work / model / name, self.home / "new"
            new.write_bytes(path.read_bytes() if path.exists() else b"no model")
            new.rename(self.home / name)

    def serve(self, name, model, card, settings):
        """Start a service, and wait until it listens."""
        print(f"{name} ...", file=sys.stderr)
        self.name, self.card, self.home = name, card, self.work / "served" / name
        self.home.mkdir(parents=True, exist_ok=True)
        self.put(model)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {
            "ISOSERVE_MODEL": f"{self.home}/model.pickle",
            "ISOSERVE_STATE_DIR": f"{self.home}/state",
            "ISOSERVE_PORT": str(self.port),
            "ISOSERVE_WORKERS": "1",
            "ISOSERVE_DRAIN_SECONDS": "0",
        } | settings
        with (self.home / "log").open("w") as log:
            command, variables = [sys.executable, "-m", "service"], self.environment(settings)
            self.process = subprocess.Popen(
                command, env=variables, stdout=log, stderr=log, process_group=0
            )
        limit = time.monotonic() + 300
        while self.process.poll() is None and time.monotonic() < limit:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.1)

    def ask(self, *, kind, method, path, headers, body, until=""):
        """Send a request, repeatedly until the answer contains the text `until`."""
        limit = time.monotonic() + 60
        answer = self.exchange(method, path, headers, body)
        while until not in answer and time.monotonic() < limit:
            time.sleep(0.2)
            answer = self.exchange(method, path, headers, body)
        title = f"{self.name}: {method} {path[:100]} {headers} {body[:300]!r}"
        self.note(kind, title, answer, f"{path} {headers} {body}")

    def exchange(self, method, path, headers, body):
        """Return the answer to a request as text: status, headers and body."""
        known, last = self.last
        gaps = {"@VERSION@": known.get("X-Model-Version", ""), "@ETAG@": known.get("ETag", "")}
        body = body.replace("@LAST@", last.decode("latin-1")).encode("latin-1")
        if not {"Transfer-Encoding", "Content-Length"} & headers.keys():
            headers = {**headers, "Content-Length": str(len(body))}
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {text}" for name, text in ({"Host": "replay"} | headers).items()]
        head = "\r\n".join([*lines, "", ""])
        for gap, text in gaps.items():
            head = head.replace(gap, text)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=60) as client:
                client.sendall(head.encode() + body)
                answer = http.client.HTTPResponse(client, method=method)
                answer.begin()
                found = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer: {error!r}"
        self.last = dict(answer.getheaders()), found
        lines = sorted(f"{name}: {text}" for name, text in answer.getheaders() if name != "Allow")
        lines += [f"Allow: {sorted(answer.getheader('Allow', '').split(', '))}"]
        body = found.decode(errors="backslashreplace")
        return "\n".join([f"{answer.status} {answer.reason}", *lines, "", body])

    def wait(self, seconds):
        time.sleep(seconds)

    def tell_to_stop(self):
        self.process.terminate()

    def stop(self):
        """Stop the service; note its exit code, its state files and its log."""
        if self.process.poll() is None:
            self.process.terminate()
        lines = [f"exit code {self.process.wait(60)}"]
        for path in sorted((self.home / "state").glob("**/*")):
            lines.append(f"{path.stat().st_mode:o} {path.name}")
        with contextlib.suppress(FileNotFoundError):
            lines.append((self.home / "state/audit.jsonl").read_text())
        self.note("ends", self.name, "\n".join(lines))
        log = (self.home / "log").read_text().replace(f":{self.port}", ":<port>")
        self.note(WORDS, f"the log of {self.name}", log)

    def play(self, todo):
        """Do all steps and return the answers."""
        try:
            for step in todo:
                given = dict(step)
                getattr(self, given.pop("do"))(**given)
        finally:
            if self.process and self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            shutil.rmtree(self.work)
        return self.answers


def record(folder):
    """Make a recording."""
    folder.mkdir(parents=True)
    todo = list(steps())
    answers = Player(folder).play(todo)
    with gzip.open(folder / "recording.json.gz", "wt") as file:
        json.dump({"steps": todo, "answers": answers}, file)
    print(f"{len(answers)} answers are in {folder}")
    return 0


def compare(folder):
    """Repeat the recorded steps, and print how the answers differ."""
    with gzip.open(folder / "recording.json.gz", "rt") as file:
        recording = json.load(file)
    answers, code = Player(folder).play(recording["steps"]), 0
    pairs = list(zip(recording["answers"], answers, strict=True))
    reworded, kinds = {}, {}
    for (kind, title, old), (_, _, new) in pairs:
        if old != new and (sentences := changed_sentences(old, new)):
            reworded |= dict.fromkeys(sentences)
        elif old != new:
            kinds.setdefault(kind, []).append((title, old, new))
    for kind, differing in sorted(kinds.items(), key=lambda item: (item[0] == WORDS, item[0])):
        print(f"\n===== {kind}: {len(differing)} differ")
        show(differing)
    for old, new in reworded:
        print(f"\nreworded: {old}\n      ->: {new}")
    for name, chosen in (("answers", False), ("outputs of commands and logs", True)):
        some = [pair for pair in pairs if (pair[0][0] == WORDS) == chosen]
        equal = sum(old == new for old, new in some)
        different = sum(len(found) for kind, found in kinds.items() if (kind == WORDS) == chosen)
        more = (
            f", {len(some) - equal - different} are only reworded"
            if equal + different < len(some)
            else ""
        )
        print(f"{len(some)} {name}, {equal} equal, {different} differ{more}")
        code = code or (different and not chosen)
    return int(bool(code))


def changed_sentences(old, new):
    """Return the (old, new) sentences of two answers that differ in nothing else, else []."""
    frames = [
        SENTENCE.sub(r"\1", re.sub(r"(?m)^Content-Length: .*", "", text)) for text in (old, new)
    ]
    if frames[0] != frames[1]:
        return []
    found = [[text for _, text in SENTENCE.findall(answer)] for answer in (old, new)]
    return [pair for pair in zip(*found, strict=True) if pair[0] != pair[1]]


def show(differing):
    """Print the differences of answers, equal ones once."""
    groups = {}
    for title, old, new in differing:
        lines = [re.sub(r'([{\[,])(?=["{\[])', r"\1\n", text).split("\n") for text in (old, new)]
        diff = list(difflib.unified_diff(*lines, "before", "after", n=2, lineterm=""))
        key = tuple(line for line in diff[2:] if line[0] in "+-")
        groups.setdefault(key, (diff, []))[1].append(title)
    for diff, titles in groups.values():
        more = f"\n... and {len(titles) - 1} more like it" if titles[1:] else ""
        print(f"\n{titles[0]}{more}", *(line[:300] for line in diff[:80]), sep="\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # runs the cleanup
    if len(sys.argv) != 3 or sys.argv[1] not in ("record", "compare"):
        sys.exit(__doc__)
    sys.exit((record if sys.argv[1] == "record" else compare)(Path(sys.argv[2]).absolute()))
