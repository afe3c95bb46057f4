"""A real Chromium for tests of the console, and tables for it to show."""

import contextlib
import csv
import shutil
from pathlib import Path

import numpy as np

CHROMIUM = shutil.which("chromium")

FLAGS = [
    f"--{flag}"
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
    )
]

DATA = Path(__file__).parents[3] / "shared/data"

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7*7 }}{% raw %}",
    "=cmd|' /C calc'!A1",
    "</script><svg onload=alert(1)>",
    "naïve ☃ \u202etxt",
)
"""Names and cells that must stay text."""


@contextlib.contextmanager
def chromium():
    """Start a browser of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visitor:
    """A window of the browser on one service; it remembers what went wrong in its pages."""

    def __init__(self, browser, port, **context):
        self.home = f"http://127.0.0.1:{port}/console"
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.faults = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._dismiss)

    def _dismiss(self, dialog):
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def go(self, view="now"):
        self.page.goto(f"{self.home}/{view}")
        return self.page

    def audit(self):
        """Return the rules of axe-core that the page breaks, and where."""
        from axe_playwright_python.sync_playwright import Axe

        broken = Axe().run(self.page).response["violations"]
        return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in broken]

    def overflows(self):
        """Return whether one must scroll sideways."""
        script = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return self.page.evaluate(script)


def hostile_rows(n, seed=16):
    """Return rows of a mixed table whose names and cells want to be markup."""
    chance = np.random.default_rng(seed)
    names = [HOSTILE[0], HOSTILE[1], "amount", "is new"]
    return names, [
        [
            HOSTILE[int(chance.integers(0, len(HOSTILE)))],
            round(float(chance.normal(100, 15)), 2),
            None if i % 20 == 3 else round(float(chance.lognormal(3)), 2),
            "yes" if chance.random() < 0.3 else "no",
        ]
        for i in range(n)
    ]


def train(folder, names, rows, label=None, trees=20):
    """Train a model of a table and return the path of its file."""
    from training.export import describe, save_model
    from training.forest import fit_forest
    from training.tables import from_file

    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
    dataset = from_file(folder / "table.csv", **({"label": label} if label else {}))
    forest = fit_forest(dataset.X, n_estimators=trees, contamination=0.05)
    save_model(folder, forest, describe(forest, dataset))
    return folder / "model.pickle"
