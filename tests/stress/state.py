"""Random damages of every state file: the outcome is sound, quarantined or refused, never wrong."""

import logging
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import date

import numpy as np

from service.errors import BadSetting, Unavailable
from service.rows import Verdict
from service.state.audit import AuditLog
from service.state.counts import Counts
from service.state.feedback.store import begin_feedback
from service.state.files import count_quarantined
from service.state.generations import Generations
from service.state.low_pvalues import LowPValues
from service.state.odd_cells import OddCells
from service.state.records import begin_records
from service.threshold_choice import ThresholdChoice
from service.truths import ScoredRow, Statement
from tests.support.tally import Tally

FEATURES = [f"f{j}" for j in range(30)]
PAGE = 4096


def write_state(folder):
    """Write every kind of state file, as a service does that is then killed."""
    counts, records = Counts(folder), begin_records(folder, FEATURES, 300)
    OddCells(FEATURES, folder).add([(3, 0, 5), (7, 2, 1)])
    LowPValues(folder).add(np.array([0.0005, 0.005, 0.5]))
    for number in range(60):
        scores = np.linspace(-0.5, 0.5, 1 + number % 12)
        verdict = Verdict(scores, 0.0, "0123456789ab")
        counts.add(verdict)
        counts.observe(f"/{number % 40}", "2xx", 0.002)
        records.append(f"p{number}", number + np.ones((len(scores), len(FEATURES))), verdict)
    audit, generations = AuditLog(folder), Generations(folder)
    for number in range(5):
        with audit.recording("me", ("threshold", number / 10, (number + 1) / 10)):
            audit.choose(ThresholdChoice((number + 1) / 10), "abc", ThresholdChoice(0.0))
        generations.count("threshold")
    store = begin_feedback(folder)
    for number in range(40):
        rows = [ScoredRow(i, i % 2, i / 7, "0123456789ab", True) for i in range(5)]
        store.add(Statement(f"p{number}", truths=(0, 1, 0, 1, 1), reward=number), rows)
    # SQLite's log disappears when the last connection is closed, so it is copied before.
    shutil.copytree(folder, folder.with_name("sound"))
    store.close()


def read_state(folder):
    """Start on a state folder; return what each kind of file says, or how it was refused."""
    found = {"counts": Counts(folder).read()}
    found["cells"] = OddCells(FEATURES, folder).read()
    found["pvalues"] = LowPValues(folder).read()
    records = begin_records(folder, FEATURES, 300)
    found["records"] = records.read()[["stamp", "puid", "row", "score", "values"]].tolist()
    found["found"] = [records.find(f"p{number}")["score"].tolist() for number in range(60)]
    audit, log = AuditLog(folder), folder / "audit.jsonl"
    found["audit"] = log.read_bytes() if log.exists() else b""
    found["threshold"] = audit.chosen("abc", ThresholdChoice(0.0))[0]
    found["changes"] = changes = Generations(folder).changes()
    audit.report_missing(changes.swaps + changes.thresholds)
    store = begin_feedback(folder)
    with suppress(Unavailable):
        found["feedback"] = store.read(), store.history()
    store.close()
    return found


def flip(content, chance):
    """Change one to three bits."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def cut(content, chance):
    """Keep only the beginning."""
    return content[: chance.randrange(len(content))]


def grow(content, chance):
    """Add some bytes."""
    return content + chance.randbytes(chance.randint(1, 5000))


def zero(content, chance):
    """Lose a page, which then reads as zeros."""
    start = chance.randrange(len(content)) // PAGE * PAGE
    return content[:start] + bytes(len(content[start : start + PAGE])) + content[start + PAGE :]


def scramble(content, chance):
    """Overwrite some bytes."""
    start, length = chance.randrange(len(content)), chance.randint(1, 200)
    return content[:start] + chance.randbytes(len(content[start : start + length])) + (
        content[start + length :]
    )  # fmt: skip


def swap(content, chance):
    """Exchange two pages."""
    pages = [content[i : i + PAGE] for i in range(0, len(content), PAGE)]
    i, j = (chance.randrange(len(pages)) for _ in range(2))
    pages[i], pages[j] = pages[j], pages[i]
    return b"".join(pages)


def empty(content, chance):
    """Keep the name only."""
    return b""


DAMAGES: tuple[Callable[..., bytes], ...] = (flip, flip, cut, grow, zero, scramble, swap, empty)


class Heard(logging.Handler):
    """Keeps what was logged as a warning or worse."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


def stress_state(folder, damages=1000, seed=None):
    """Check that a damaged state file is sound all the same, quarantined, or refused aloud.

    Each day has other damages, unless a seed is given: a fault names the seed that repeats it.
    """
    seed = date.today().toordinal() if seed is None else seed
    logger, heard = logging.getLogger("service"), Heard()
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(heard)
    tally, chance = Tally("damaged state files"), random.Random(seed)
    try:
        (folder / "first").mkdir()
        write_state(folder / "first")
        sound = folder / "sound"
        shutil.copytree(sound, folder / "right")
        right = read_state(folder / "right")
        names = sorted(path.name for path in sound.iterdir() if path.suffix != ".db-shm")
        for number in range(damages):
            name, damage = chance.choice(names), chance.choice(DAMAGES)
            damaged = copy_damaged(folder, name, lambda content, d=damage: d(content, chance))
            heard.said.clear()
            fault, outcome = judge(damaged, right, heard.said)
            what = f"damage {number} of seed {seed}, {damage.__name__} of {name}"
            tally.note(what, fault, 0.0, outcome)
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)
        logger.propagate = propagate
    return tally


def copy_damaged(folder, name, damage):
    """Return a copy of the sound state folder in which one file is damaged."""
    damaged = folder / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(folder / "sound", damaged)
    if content := (damaged / name).read_bytes():
        (damaged / name).write_bytes(damage(content))
    return damaged


def judge(damaged, right, said):
    """Start on a damaged folder; return the fault, empty if there is none, and the outcome."""
    try:
        found = read_state(damaged)
    except BadSetting:
        return "", "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}", "raised"
    differs = [key for key in right if not same(found.get(key), right[key])]
    if not differs:
        return "", "sound"
    outcome = "quarantined" if count_quarantined(damaged) else "told"
    return "" if said else f"{', '.join(differs)} differ without a word", outcome


def same(one, other):
    """Return whether two readings are equal; NaN equals itself."""
    return repr(one) == repr(other)
