"""Check the documentation against the code."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import LABELS, PARAMETERS, SELDON_VARIABLES, describe_settings
from service.telemetry.metrics import METRICS
from tests.support import reference
from training.train import main as train

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROTOCOLS = (ROOT / "docs/guide/protocols.md").read_text()
REFERENCE = (ROOT / "docs/reference.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def table(heading, page=README):
    """Return the rows of the table under a heading of a page, as lists of cells."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_reference_is_up_to_date_with_the_code():
    assert reference.render() == REFERENCE, "write it with: python -m tests.support.reference"


def test_the_reference_lists_every_setting():
    rows = [[f"`{name}`", f"`{default}`" if default else "", meaning]
            for name, default, meaning in describe_settings()]  # fmt: skip
    assert table("Settings", REFERENCE)[: len(rows)] == rows
    assert all(f"`{name}`" in REFERENCE for name in [*SELDON_VARIABLES, PARAMETERS, LABELS])


def test_variables_of_seldon_are_either_supported_or_documented_as_unsupported():
    section = PROTOCOLS.split("\n## Seldon v1\n")[1].split("\n## ")[0]
    names = [name for row in section.splitlines() if row.startswith("| `")
             for name in re.findall(r"`([A-Z_]+\*?)`", row.split("|")[1])]  # fmt: skip
    assert {"MODEL_METADATA", "SELDON_EXECUTOR_ENABLED", "GUNICORN_MAX_REQUESTS"} <= set(names)
    assert not set(names) & {*SELDON_VARIABLES, PARAMETERS, LABELS}


def test_the_reference_lists_every_metric():
    rows = [[f"`{name}`", kind, text] for name, (kind, text) in METRICS.items()]
    assert table("Metrics", REFERENCE) == rows


def test_the_reference_lists_every_route_with_its_summary(make_client):
    client = make_client(admin_token="x" * 16)
    expected = [
        [f"`{', '.join(methods).upper()} {path}`", next(iter(methods.values()))["summary"]]
        for path, methods in client.get("/openapi.json").json["paths"].items()
    ]
    assert [row[:2] for row in table("Routes", REFERENCE)] == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_named_in_the_documentation_exists(page):
    names = {name for name, _, _ in describe_settings()}
    assert set(re.findall(r"`(ISOSERVE_\w+)", page.read_text())) <= names


def test_every_module_named_in_the_documentation_exists():
    pages = [ROOT / "CONTRIBUTING.md", *(ROOT / "docs/internals").glob("*.md")]
    named = {path for page in pages for path in re.findall(r"`([\w/]+\.py)`", page.read_text())}
    folders = (ROOT, ROOT / "service")
    assert {path for path in named if not any((one / path).exists() for one in folders)} == set()


def test_the_readme_has_at_most_150_lines_and_a_curl_in_the_first_25():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert any(line.startswith("curl ") for line in lines[:25])


def test_documented_client_calls_are_those_of_the_conformance_tests():
    section = PROTOCOLS.split("\n## Drop in\n")[1].split("\n## ")[0]
    scripts = "".join(path.read_text() for path in (ROOT / "tests/interop").glob("*.py"))
    clients = re.findall(r"`(\w+)\(", section)
    assert len(clients) == 5
    assert {name for name in clients if f"{name}(" not in scripts} == set()
    assert '"infer", "-u", case.address, "-m"' in scripts


def test_every_folder_listed_in_the_readme_exists():
    folders = [row[0].strip("`/") for row in table("What is where")]
    assert all((ROOT / folder).is_dir() for folder in folders)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_has_a_target(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (page.parent / target).exists() or target.startswith("https://"), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_named_in_the_documentation_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z][a-z-]+)\b", "\n".join(commands(page))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_nightly_part_named_in_the_documentation_exists(page):
    parts = re.search(r'^all="(.*)"$', (ROOT / ".ci/nightly").read_text(), re.MULTILINE)[1].split()
    named = re.findall(r"\bmake nightly ONLY=\"?([a-z-][a-z. -]*)", "\n".join(commands(page)))
    assert {part for some in named for part in some.split()} <= set(parts)


def commands(page):
    """Return the text in shell blocks and in backquotes."""
    text = page.read_text()
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)


def examples(page):
    """Return each curl of a page with the JSON that is printed below it."""
    return re.findall(r"```sh\n(curl (?:(?!```).)*)```\n\n```json\n(.*?)```", page, re.DOTALL)


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def plain(value):
    """Leave out what differs between runs, and the last bits, which differ between machines."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in CHANGING}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return round(value, 12) if isinstance(value, float) else value


CHANGING = {"puid", "model_version", "versions"}


@pytest.fixture(scope="session")
def sample_model(tmp_path_factory):
    """The model that `make serve` trains."""
    folder = tmp_path_factory.mktemp("sample")
    assert train(["--save_path", str(folder)]) == 0
    return folder / "model.pickle"


def paste(command, service):
    """Run a command of the documentation beside a service; return what it prints."""
    command = command.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
    command = command.replace("python -m", f"{sys.executable} -m")
    state = {"ISOSERVE_STATE_DIR": str(service.log.with_suffix(""))}
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=os.environ | state, capture_output=True, check=True
    )
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("page", "counts"), [(README, (2, 1)), (PROTOCOLS, (8, 5))], ids=["README", "protocols"]
)
def test_each_documented_curl_gets_the_documented_response(sample_model, serve, page, counts):
    service = serve(sample_model)
    for command, printed in examples(page):
        assert plain(json.loads(paste(command, service))) == plain(json.loads(printed)), command
    _, metrics = service.request("GET", "/metrics")
    assert b"isoserve_samples_total %d.0" % counts[0] in metrics
    assert b"isoserve_outliers_total %d.0" % counts[1] in metrics


@pytest.mark.slow
def test_the_model_page_shows_the_output_of_its_commands(
    sample_model, serve, tmp_path, monkeypatch
):
    shutil.copytree(sample_model.parent, tmp_path / "models")
    page = (ROOT / "docs/operate/model.md").read_text()
    page = page.replace("training.train", f"training.train --save_path {tmp_path}/models")
    monkeypatch.setenv("ISOSERVE_ADMIN_TOKEN", "0123456789abcdef")
    service = serve(tmp_path / "models" / "model.pickle")
    load, threshold = (
        json.loads(paste(command, service).splitlines()[-1])
        for command in blocks("sh", page)
        if "curl" in command
    )
    printed = json.loads(blocks("json", page)[0])
    # Other versions of scikit-learn and numpy write other bytes.
    for found in (load, load["former"], printed, printed["former"]):
        assert re.fullmatch("[0-9a-f]{12}", found.pop("model_version"))
    assert load == printed
    assert threshold["threshold"] == -0.05


@pytest.mark.slow
def test_the_feedback_page_shows_the_output_of_its_commands(sample_model, serve, tmp_path):
    page = (ROOT / "docs/guide/feedback.md").read_text()
    page = page.replace("feedback.csv", str(tmp_path / "feedback.csv"))
    service = serve(sample_model)
    printed = [paste(command, service) for command in blocks("sh", page)]
    answers = [json.loads(text) for text in printed if text.startswith("{")]
    assert [len(answers), len(printed)] == [4, 7]
    assert not any("status" in answer for answer in answers)
    assert answers[1] == json.loads(blocks("json", page)[0])
    # Other versions of scikit-learn and numpy write other bytes, which are another version.
    summary, shown = (
        re.sub("[0-9a-f]{12}", "", text) for text in (printed[4], blocks("text", page)[0])
    )
    assert summary.split() == shown.split()
    assert printed[5].startswith("5 lines are in")
    assert printed[6].startswith("3 truths and rewards are deleted.")


def test_every_threat_has_a_test():
    page = (ROOT / "docs/operate/threat-model.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("| ")]
    threats = [row for row in rows if not row.startswith(("| threat |", "| --- |"))]
    for threat in threats:
        proofs = re.findall(r"`(?:[\w/]+/)?(\w+\.py)::(\w+)`", threat.split("|")[3])
        assert proofs, threat
        for file, name in proofs:
            found = (ROOT / "tests").rglob(file)
            assert any(f"\ndef {name}(" in path.read_text() for path in found), name


def test_make_help_explains_every_target():
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


def test_lock_files_have_only_names_versions_and_hashes():
    for lock in (ROOT / "requirements").glob("*.txt"):
        for line in lock.read_text().splitlines():
            assert re.fullmatch(
                r"[a-z0-9-]+==[^ ]+( ; [^:/]+)?( \\)?|    --hash=sha256:\w{64}( \\)?", line
            )
