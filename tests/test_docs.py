"""The documentation, held against the code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.metrics import METRICS
from service.settings import PARAMETERS, SELDON_VARIABLES, describe_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def table(heading):
    """Return the rows of the table under a heading of the README, as lists of cells."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_readme_lists_every_setting():
    rows = [[f"`{name}`", f"`{default}`" if default else "", meaning]
            for name, default, meaning in describe_settings()]  # fmt: skip
    assert table("Settings") == rows
    assert all(name in README for name in [*SELDON_VARIABLES, PARAMETERS])


def test_the_readme_lists_every_metric():
    assert table("Metrics") == [[f"`{name}`", kind, text] for name, (kind, text) in METRICS.items()]


def test_the_readme_lists_every_route(make_client):
    rules = make_client(admin_token="x" * 16).application.url_map.iter_rules()
    routes = {f"`{m} {rule.rule}`" for rule in rules for m in rule.methods - {"HEAD", "OPTIONS"}}
    assert {row[0] for row in table("Routes")} == routes


def test_every_folder_on_the_map_is_there():
    folders = [row[0].strip("`/") for row in table("What is where")]
    assert all((ROOT / folder).is_dir() for folder in folders)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (page.parent / target).exists() or target.startswith("https://"), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_is_named_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z][a-z-]+)\b", "\n".join(commands(page))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def commands(page):
    """Return what stands in shell blocks and in backquotes."""
    text = page.read_text()
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def rounded(value):
    """Round floats to 12 digits: the last bits differ between kinds of machine."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 12) if isinstance(value, float) else value


@pytest.fixture
def sample_service(tmp_path, serve):
    """The sample model, served; `run` does what a page says, here instead of in the repository."""
    train = f"{sys.executable} -m training.train"
    subprocess.run([*train.split(), "--save_path", str(tmp_path)], cwd=ROOT, check=True)
    token = "0123456789abcdef"
    service = serve(tmp_path / "model.pickle", admin_token=token)

    def run(command):
        command = command.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
        command = command.replace("python -m training.train", f"{train} --save_path {tmp_path}")
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=ROOT,
            env=os.environ | {"ISOSERVE_ADMIN_TOKEN": token},
            capture_output=True,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    service.run = run
    return service


def test_the_commands_that_are_printed_get_the_answers_that_are_printed(sample_service):
    answer = sample_service.run(next(block for block in blocks("sh") if "curl" in block))
    printed = json.loads(blocks("json")[0])
    assert len(answer["meta"].pop("puid")) == len(printed["meta"].pop("puid"))
    assert rounded(answer) == rounded(printed)
    _, metrics = sample_service.request("GET", "/metrics")
    assert b"isoserve_samples_total 2.0" in metrics
    assert b"isoserve_outliers_total 1.0" in metrics

    page = (ROOT / "docs" / "model.md").read_text()
    load, set_threshold = (block for block in blocks("sh", page) if "curl" in block)
    answer, printed = sample_service.run(load), json.loads(blocks("json", page)[0])
    # Other versions of scikit-learn and numpy write other bytes.
    for told in (answer, answer["former"], printed, printed["former"]):
        assert re.fullmatch("[0-9a-f]{12}", told.pop("model_version"))
    assert answer == printed
    assert sample_service.run(set_threshold)["threshold"] == -0.05


def test_help_explains_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)[1]
    targets = set(phony.replace("\\\n", " ").split())
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert targets == {line.split()[0] for line in listed.splitlines()}


def test_locks_hold_names_versions_and_hashes_only():
    for lock in (ROOT / "requirements").glob("*.txt"):
        for line in lock.read_text().splitlines():
            assert re.fullmatch(
                r"[a-z0-9-]+==[^ ]+( ; [^:/]+)?( \\)?|    --hash=sha256:\w{64}( \\)?", line
            )
