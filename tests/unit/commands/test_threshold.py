"""From what one can look at to a served threshold, with one command."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from service.__main__ import cli
from service.rows import Verdict
from service.state.feedback.store import begin_feedback
from service.state.folder import StateFolder
from service.state.records import begin_records
from service.truths import ScoredRow, Statement
from tests.support.cards import calibration
from tests.support.running import read_samples

TOKEN = "a token for nothing but tests"


@pytest.fixture
def run(folder, monkeypatch):
    """Run the command; return its exit code and its output."""
    monkeypatch.setenv("ISOSERVE_STATE_DIR", str(folder / "state"))
    monkeypatch.setenv("ISOSERVE_MODEL", str(folder / "model.pickle"))

    def invoke(*arguments):
        result = CliRunner().invoke(cli, ["threshold", *arguments])
        return result.exit_code, " ".join(result.output.split())

    return invoke


@pytest.fixture
def card(write_card, forest, samples):
    """Write a card with p-values."""
    return write_card(calibration=calibration(forest.decision_function(samples)))


@pytest.fixture
def recorded(folder, forest, samples, monkeypatch):
    """1,000 recorded rows of two days, of which 300 have feedback."""
    path = StateFolder(folder / "state").path
    records, feedback = begin_records(path, ["mean", "sd"], 5_000), begin_feedback(path)
    version = _version(folder)
    scores = forest.decision_function(samples[:1_000])
    now = 1e9
    monkeypatch.setattr("service.state.records.time.time", lambda: now)
    for i, part in enumerate(np.split(scores, 10)):
        now = 1e9 + i * 2 * 86_400 / 9
        records.append(f"p{i}", samples[:100], Verdict(part, 0.0, version))
        if i < 3:
            rows = [ScoredRow(j, int(s < 0), s, version, True) for j, s in enumerate(part)]
            feedback.add(Statement(f"p{i}", truths=tuple(map(int, part < 0.02))), rows)
    return scores


def _version(folder):
    from service.model.content import read_model_file

    return read_model_file(folder / "model.pickle").sha256[:12]


def test_a_ladder_says_what_is_known_and_what_is_not(run, card):
    code, said = run()
    assert code == 0
    heading, _, rest = said.partition(" Training: ")
    assert "of training" in heading and "of recorded" not in heading and "recall" not in heading
    assert rest.startswith("5,000 rows, scored out of bag. Recorded: no rows of this model")
    assert "Labels: none; train with --label, or send feedback" in said
    assert "The threshold is 0. To have one proposed" in said


def test_records_and_feedback_make_rows_a_day_precision_recall_and_cost(run, card, recorded):
    code, said = run("--cost", "fp=1,fn=9")
    assert code == 0
    assert "Recorded: 1,000 rows of this model, 500 a day." in said
    outliers = int((recorded[:300] < 0.02).sum())
    assert f"Labels: 300 rows with feedback, {outliers} outliers among them" in said
    assert "precision 1.00 (" in said and "recall 1.00 (" in said and " 0 proposed " in said
    _, said = run("--budget", "14/week")  # 2 a day of 500: 4 of 1,000, too few to count
    assert "of rows like training's" in said and "Proposed: the threshold" in said
    _, said = run("--budget", "20/day")
    threshold = np.sort(recorded)[40]
    assert f"Proposed: the threshold {threshold:.6g}: " in said
    assert "4 % of the recorded ones, 20 rows a day" in said
    assert said.endswith(f"start with ISOSERVE_THRESHOLD={float(threshold)!r}")


def test_no_figure_is_cut_where_the_output_is_no_terminal(run, card, recorded):
    result = CliRunner().invoke(cli, ["threshold", "--cost", "fp=1,fn=9"])
    ladder = result.output.split("Training:")[0].splitlines()
    assert len(ladder) > 8 and "…" not in result.output
    assert all(line.count("(") == 2 for line in ladder[3:])  # two intervals a line


@pytest.mark.usefixtures("card")
def test_the_card_is_enough_so_no_forest_is_compiled(folder):
    program = (
        "import sys; from service.__main__ import cli; cli(['threshold'], standalone_mode=False); "
        "print({'numba', 'gunicorn', 'structlog', 'service.model.file'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env=os.environ | {
            "ISOSERVE_MODEL": str(folder / "model.pickle"), "ISOSERVE_STATE_DIR": str(folder),
        },
    )  # fmt: skip
    assert "5,000 rows, scored out of bag" in found.stdout
    assert found.stdout.endswith("\nset()\n")


def test_labels_of_flagged_rows_only_say_nothing_of_recall(run, card, folder):
    feedback, version = begin_feedback(StateFolder(folder / "state").path), _version(folder)
    rows = [ScoredRow(j, 1, -0.1 - j / 100, version, True) for j in range(5)]
    feedback.add(Statement("p", truths=(1, 1, 1, 0, 1)), rows)
    code, said = run()
    assert (code, "Recall is not known: only flagged rows have a truth" in said) == (0, True)
    assert "recall" not in said.split("Training:")[0]
    code, said = run("--recall", "0.9")
    assert (code, "only flagged ones have a truth" in said) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget", "20/year"], "--budget 20/year is not a number of rows a day, as in 20/day"),
        (["--budget", "0/day"], "--budget 0/day is not above 0"),
        (["--budget", "20/day"], "say them, as --rate 50000/day"),
        (["--rate", "many"], "--rate many is not a number of rows a day"),
        (["--cost", "fp=1"], "--cost fp=1 is not as in fp=1,fn=50"),
        (["--cost", "fp=1,fn=-2"], "has a cost that is not a number from 0 up"),
        (["--cost", "fp=1,fn=2"], "cost needs labels: train with --label, or send feedback"),
        (["--share", "2"], "a share is above 0 and below 1, not 2"),
        (["--share", "0.00001"], "5,000 training rows cannot promise a share of 1e-05"),
        (["--share", "0.01", "--recall", "0.9"], "choose by one of --share, --budget and --recall"),
        (["--apply"], "say what to choose by"),
        (["--share", "0.01", "--apply"], "--apply needs the service's ISOSERVE_ADMIN_TOKEN"),
    ],
)
def test_what_cannot_be_chosen_ends_with_a_sentence(run, card, arguments, words):
    code, said = run(*arguments)
    assert (code, words in said) == (1, True), said


def test_a_model_without_p_values_says_why(run, write_card):
    code, said = run()
    assert (code, "nothing is known about the scores of this model" in said) == (1, True)
    write_card(calibration=calibration([]))
    code, said = run("--share", "0.01")
    assert (code, "this model has no p-values (too few trees)" in said) == (1, True)


@pytest.mark.usefixtures("card")
def test_from_twenty_alerts_a_day_to_a_served_threshold_with_one_command(
    run, folder, samples, serve, monkeypatch
):
    service = serve(folder / "model.pickle", admin_token=TOKEN)
    body = json.dumps({"data": {"ndarray": samples[:1_000].tolist()}})
    headers = {"Content-Type": "application/json"}
    status, answer = service.request("POST", "/predict?scores=1", body, headers)
    scores = json.loads(answer)["meta"]["tags"]["anomaly-scores"]
    assert status == 200
    monkeypatch.setenv("ISOSERVE_STATE_DIR", str(service.log.with_suffix("")))
    monkeypatch.setenv("ISOSERVE_PORT", str(service.port))
    monkeypatch.setenv("ISOSERVE_ADMIN_TOKEN", TOKEN)

    def served(name):
        return read_samples(service.request("GET", "/metrics")[1].decode()).get((name, ()))

    code, said = run("--budget", "20/day", "--rate", "1000/day", "--apply")
    assert (code, "Set: http://127.0.0.1:" in said) == (0, True), said
    assert served("isoserve_threshold") == sorted(scores)[20]
    code, said = run("--share", "0.005", "--apply")
    assert (code, served("isoserve_outlier_share")) == (0, 0.005), said
    code, said = run()
    assert (code, "now" in said, " 0.5 % " in said) == (0, True, True)
    monkeypatch.setenv("ISOSERVE_ADMIN_TOKEN", "x" * 16)
    code, said = run("--share", "0.01", "--apply")
    assert (code, "refused: missing or wrong admin token" in said) == (1, True), said
    service.kill()
    code, said = run("--share", "0.01", "--apply")
    assert (code, "no isoserve answers at http://127.0.0.1:" in said) == (1, True), said
