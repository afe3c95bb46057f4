"""The commands other than the service itself."""

import importlib.metadata
import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from service.__main__ import cli
from service.model.card import Golden
from service.model.file import load_model
from service.rows import Totals, Verdict
from service.state.counts import Counts
from service.state.feedback.store import FILE_NAME, begin_feedback
from service.state.files import quarantined
from service.state.folder import StateFolder
from service.state.records import begin_records, open_records
from service.truths import ScoredRow, Statement


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command on a state folder; return its exit code and its output."""
    monkeypatch.setenv("ISOSERVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ISOSERVE_MODEL", str(tmp_path / "model.pickle"))

    def invoke(*arguments):
        result = CliRunner().invoke(cli, arguments)
        return result.exit_code, " ".join(result.output.split())

    return invoke


@pytest.fixture
def records(tmp_path, monkeypatch):
    """Three predictions of two rows each, of 1970, 2001 and 2033."""
    records = begin_records(StateFolder(tmp_path / "state").path, ["a", "b"], 100)
    for name, time in (("p0", 1.0), ("p1", 1e9), ("p2", 2e9)):
        monkeypatch.setattr("service.state.records.time.time", lambda time=time: time)
        records.append(name, np.ones((2, 2)), Verdict(np.array([0.1, -0.1]), 0.0, "abc"))
    return records


def test_a_model_file_is_checked_step_by_step(run, folder, write_card):
    write_card()
    code, said = run("check")
    assert (code, said.startswith(f"file {folder / 'model.pickle'}, ")) == (0, True)
    assert "forest 5 trees" in said
    assert said.endswith("scores 3 golden rows: identical to training It can be served.")


def test_a_file_that_is_not_a_model_is_refused_with_the_step(run, folder, monkeypatch):
    monkeypatch.setenv("ISOSERVE_MODEL_SHA256", "0" * 64)
    code, said = run("check", str(folder / "model.pickle"))
    assert (code, "put the right file there" in said) == (1, True)
    (folder / "notes.txt").write_text("notes")
    monkeypatch.delenv("ISOSERVE_MODEL_SHA256")
    code, said = run("check", str(folder / "notes.txt"))
    assert (code, "is not a saved IsolationForest" in said) == (1, True)


def test_golden_rows_with_tiny_differences_are_reported_as_close(run, write_card, forest, samples):
    scores = forest.decision_function(samples[:3])
    scores[1] += 3e-16
    write_card(golden=Golden(samples[:3].tolist(), None, scores.tolist()))
    assert "equal within 1e-12 (at most 3" in run("check")[1]
    scores[2] += 3e-12
    write_card(golden=Golden(samples[:3].tolist(), None, scores.tolist()))
    code, said = run("check")
    assert (code, "does not score as in training: golden row 2" in said) == (1, True)


def test_counts_are_reset(run, tmp_path):
    state = StateFolder(tmp_path / "state")
    Counts(state.path).add(Verdict(np.array([0.1]), 0.0))
    code, said = run("counts", "reset")
    assert (code, said.endswith("stop it first")) == (1, True)
    del state
    assert run("counts", "reset")[0] == 0
    assert Counts(tmp_path / "state").read().totals == Totals(0, 0)


def test_recorded_rows_are_exported(run, records, tmp_path):
    code, said = run("records", "export", str(tmp_path / "out.csv"))
    assert (code, said.startswith("6 rows are in")) == (0, True)
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["puid"].tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert table["time"][0] == "1970-01-01 00:00:01.000000+00:00"


def test_exports_to_standard_output_are_a_table_and_nothing_else(
    records, feedback, tmp_path, monkeypatch
):
    monkeypatch.setenv("ISOSERVE_STATE_DIR", str(tmp_path / "state"))
    for group, lines in (("records", 6), ("feedback", 5)):
        result = CliRunner().invoke(cli, [group, "export", "-"])
        table = pd.read_csv(io.StringIO(result.stdout))
        assert (result.exit_code, len(table)) == (0, lines)
        assert {"time", "puid"} <= set(table)
        assert result.stderr.endswith("are on standard output\n")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--puid", "p1"], [b"p0", b"p2"]),
        (["--before", "2001-09-09T01:46:40"], [b"p1", b"p2"]),
        (["--before", "2001-09-09T01:46:41Z"], [b"p2"]),
        (["--before", "2001-09-09T03:46:41+02:00"], [b"p2"]),
        (["--before", "2020-01-01"], [b"p2"]),
    ],
)
def test_recorded_rows_are_deleted(run, records, arguments, left):
    code, said = run("records", "delete", *arguments)
    assert (code, said) == (0, f"{6 - 2 * len(left)} rows are wiped.")
    assert sorted(set(records.read()["puid"].tolist())) == left


def test_quarantined_rows_are_deleted_too(run, records, tmp_path):
    begin_records(tmp_path / "state", ["a", "c"], 100)
    assert run("records", "delete", "--puid", "p1") == (0, "2 rows are wiped.")
    (kept,) = quarantined(tmp_path / "state" / "records.bin")
    kept.rename(tmp_path / "state" / "records.bin")
    assert len(open_records(tmp_path / "state").read()) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "say which rows: either --puid or --before"),
        (["--puid", "p", "--before", "2020-01-01"], "say which rows"),
        (["--before", "yesterday"], "'yesterday' is not a time"),
    ],
)
def test_a_failed_deletion_is_reported(run, records, arguments, sentence):
    code, said = run("records", "delete", *arguments)
    assert (code, said.startswith("isoserve: " + sentence)) == (1, True)


def test_a_missing_record_is_reported_in_one_sentence(run, tmp_path):
    for arguments in (["export", "out.csv"], ["delete", "--puid", "p"]):
        code, said = run("records", *arguments)
        assert (code, "records.bin cannot be read" in said) == (1, True)


@pytest.fixture
def feedback(tmp_path):
    """Three labelled rows, one of them revised, and a reward."""
    store = begin_feedback(StateFolder(tmp_path / "state").path)
    for puid, truths in (("p0", (0,)), ("p1", (1, 0)), ("p0", (1,))):
        rows = [ScoredRow(n, 1, -0.1, "abc", True) for n in range(len(truths))]
        store.add(Statement(puid, truths=truths), rows)
    store.add(Statement("p1", reward=500_000))
    return store


def test_feedback_is_summarised(run, feedback, tmp_path):
    code, said = run("feedback", "summary")
    assert code == 0
    assert "so far last 3 true negatives 0 0 false positives 1 1" in said
    assert "precision 0.6667 0.6667 Precision is measured on 3 flagged rows." in said
    assert "recall 1.0000" not in said
    assert "Recall is not known: no row that was not flagged has a truth." in said
    assert "The rows were scored by the models abc (3 rows)." in said
    assert said.endswith("1 reward other than 0, in sum 0.5. 0 messages about no known prediction.")
    feedback.add(Statement("p2", truths=(1,)), [ScoredRow(0, 0, 0.1, "def", True)])
    said = run("feedback", "summary")[1]
    assert "precision 0.6667 0.6667 recall 0.6667 0.6667" in said
    assert "Precision is measured on 3 flagged rows, recall on these and 1 row that was not" in said
    assert "The rows were scored by the models def (1 row), abc (3 rows)." in said


def test_feedback_is_exported_with_its_history(run, feedback, tmp_path):
    code, said = run("feedback", "export", str(tmp_path / "out.csv"))
    assert (code, said.startswith("5 lines are in")) == (0, True)
    table = pd.read_csv(tmp_path / "out.csv")
    first = table[table["puid"] == "p0"]
    assert first[["truth", "current"]].values.tolist() == [[0, 0], [1, 1]]
    assert table["reward"].sum() == 0.5


@pytest.mark.parametrize(
    ("arguments", "deleted"),
    [(["--puid", "p1"], 3), (["--before", "2000-01-01"], 0), (["--before", "2100-01-01"], 4)],
)
def test_feedback_is_deleted(run, feedback, arguments, deleted):
    said = f"{deleted} truths and rewards are deleted."
    assert run("feedback", "delete", *arguments) == (0, said)


def test_failed_feedback_commands_are_reported(run, feedback, tmp_path):
    path = tmp_path / "state" / FILE_NAME
    assert "say which rows: either --puid or --before" in run("feedback", "delete")[1]
    assert "neither a .csv" in run("feedback", "export", "out.txt")[1]
    feedback.close()
    path.write_bytes(b"no database " * 100)
    code, said = run("feedback", "summary")
    assert (code, "file is not a database" in said) == (1, True)
    path.unlink()
    code, said = run("feedback", "summary")
    assert (code, "no service has run with this state folder" in said) == (1, True)


def test_drift_is_printed_by_a_command(run, folder, write_card):
    write_card(score_quantiles=np.linspace(-1, 1, 101).tolist())
    records = begin_records(StateFolder(folder / "state").path, ["mean", "sd"], 5000)
    scores = np.random.default_rng(16).uniform(-1, 1, 2000)
    records.append("p", np.zeros((2000, 2)), Verdict(scores, 0.0, "another"))
    assert "0 rows of this model are recorded" in run("records", "drift")[1]
    version = load_model(folder / "model.pickle").version
    records.append("p", np.zeros((2000, 2)), Verdict(scores, 0.0, version))
    code, said = run("records", "drift")
    assert code == 0
    assert "mean 0.0000" in said
    assert "sd 0.0000" in said


def test_drift_without_a_card_is_refused(run, folder):
    begin_records(StateFolder(folder / "state").path, ["a", "b"], 100)
    code, said = run("records", "drift")
    assert (code, "has no card to compare" in said) == (1, True)


def test_commands_that_need_no_model_do_not_wait_for_its_libraries():
    code = "import sys, service.__main__; print(*{'sklearn', 'numba', 'flask'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run([sys.executable, "-m", "service", "settings"], cwd=ROOT, check=False,
                              stdout=closed, stderr=subprocess.PIPE)  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"")


def test_state_is_backed_up_and_restored(run, records, tmp_path, monkeypatch):
    file = tmp_path / "state.tar.gz"
    code, said = run("state", "backup", str(file))
    assert (code, said.startswith("1 file (records.bin) of ")) == (0, True)
    code, said = run("state", "restore", str(file))
    assert (code, "state is not empty (records.bin); name an empty" in said) == (1, True)
    monkeypatch.setenv("ISOSERVE_STATE_DIR", str(tmp_path / "new"))
    code, said = run("state", "restore", str(file))
    assert (code, said.endswith(f"are in {tmp_path / 'new'}")) == (0, True)
    assert open_records(tmp_path / "new").read().tobytes() == records.read().tobytes()
    code, said = run("state", "backup", "/proc/state.tar.gz")  # no user can write there
    assert (code, "isoserve: /proc/state.tar.gz cannot be written (" in said) == (1, True)
    assert said.endswith("name a file elsewhere, or - for standard output")
    backup = CliRunner().invoke(cli, ["state", "backup", "-"]).stdout_bytes
    monkeypatch.setenv("ISOSERVE_STATE_DIR", str(tmp_path / "other"))
    result = CliRunner().invoke(cli, ["state", "restore", "-"], input=backup)
    assert (result.exit_code, len(open_records(tmp_path / "other").read())) == (0, 6)


ROOT = Path(__file__).parents[2]


def test_the_installed_command_is_the_command_line_of_the_module():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.keys() == {"isoserve"}
    entry = importlib.metadata.EntryPoint("isoserve", scripts["isoserve"], "console_scripts")
    assert entry.load() is cli


def test_training_is_a_command_that_takes_trainings_options_from_any_folder(tmp_path):
    (tmp_path / "training").mkdir()  # a folder of the user's own
    (tmp_path / "training/__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from service.__main__ import cli; cli()"

    def isoserve(*arguments):
        command = [sys.executable, "-P", "-c", code, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    wrong = isoserve("train", "--contamination", "0.7")
    assert (wrong.returncode, wrong.stderr.startswith("error: --contamination 0.7")) == (1, True)
    assert re.search(r"--keep_cols", isoserve("train", "--help").stdout)
    assert isoserve("train", "--no_such_option").returncode == 2
