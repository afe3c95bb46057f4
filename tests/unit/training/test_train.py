import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.errors import CannotTrain
from service.model.file import load_model
from training.train import main, parse_amount, parse_keep_cols, parse_share

ROOT = Path(__file__).parents[3]


@pytest.fixture
def table(tmp_path, samples):
    """A table of 5,000 rows with labels and a column of text."""
    lines = [f"{mean!r},{sd!r},{int(mean > 8)},x" for mean, sd in samples.tolist()]
    path = tmp_path / "my.csv"
    path.write_text("\n".join(["mean,sd,fraud,city", *lines]))
    return path


def run(*command, cwd=ROOT, **options):
    """Run a command line in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip


def test_a_trained_table_is_a_model_that_the_service_loads(table, tmp_path, capsys):
    options = ["--keep_cols", "mean,sd", "--label", "fraud", "--contamination", "0.01"]
    assert main(["--dataset", str(table), *options, "--save_path", f"{tmp_path}/out/"]) == 0
    model = load_model(tmp_path / "out" / "model.pickle", require_card=True)
    assert model.features == ("mean", "sd")
    assert model.card.quality.roc_auc > 0.95
    assert model.card.training_outlier_share == pytest.approx(0.01, abs=0.001)
    out = capsys.readouterr().out
    assert "my.csv, 5,000 rows: 'mean', 'sd'" in out
    assert "100 trees of 256 rows each, contamination 0.01, seed 16" in out
    assert re.search(r"ranking +ROC AUC 0\.9\d+, average precision 0\.\d+", out)
    assert f"{tmp_path}/out/model.pickle (" in out
    assert f"ISOSERVE_MODEL={tmp_path}/out/model.pickle make" in out


def test_the_defaults_are_the_sample_its_share_of_outliers_and_scikit_learns_parameters(tmp_path):
    assert main(["--save_path", str(tmp_path)]) == 0
    card = json.loads((tmp_path / "model.json").read_text())
    assert (card["dataset"], card["rows"], card["seed"]) == ("spending", 20_000, 16)
    assert card["parameters"] == {
        "bootstrap": False, "contamination": 0.005, "max_features": 1.0, "max_samples": "auto",
        "n_estimators": 100, "n_jobs": None, "random_state": 16, "verbose": 0, "warm_start": False,
    }  # fmt: skip
    assert card["training_outlier_share"] == pytest.approx(0.005, abs=0.0005)
    assert card["quality"]["precision"] > 0.4  # with auto it is 0.06
    assert card["quality"]["recall"] > 0.4


@pytest.mark.slow
def test_training_is_reproducible_bit_for_bit(table, tmp_path):
    command = ["--dataset", str(table), "--keep_cols", "mean,sd", "--samples", "3000"]
    assert main([*command, "--save_path", str(tmp_path / "here")]) == 0
    done = run("-m", "training.train", *command, "--save_path", tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    pickles = [(tmp_path / n / "model.pickle").read_bytes() for n in ("here", "elsewhere")]
    cards = [json.loads((tmp_path / n / "model.json").read_text()) for n in ("here", "elsewhere")]
    assert pickles[0] == pickles[1]
    assert cards[0] | {"created": ""} == cards[1] | {"created": ""}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "folder"),
    [
        ("training/train.py", "."),
        ("train.py", "training"),
    ],
)
def test_a_script_run_saves_into_the_repository(tmp_path, script, folder):
    root = tmp_path / "wt"
    for name in ("service", "training"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "pyproject.toml", root)
    done = run(script, cwd=root / folder)
    assert done.returncode == 0, done.stderr
    assert f"{root}/models/model.pickle" in done.stdout
    served = "make serve" if folder == "." else f"make -C {root} serve"
    assert re.search(rf"serve it +{re.escape(served)}\n", done.stdout)
    assert (root / "models" / "model.json").exists()


@pytest.mark.slow
def test_outside_a_repository_the_model_is_saved_in_the_current_folder(tmp_path):
    library = tmp_path / "site-packages"
    for name in ("service", "training"):
        shutil.copytree(ROOT / name, library / name)
    environment = os.environ | {"PYTHONPATH": str(library)}
    done = run("-m", "training.train", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "models" / "model.pickle"
    assert re.search(rf"serve it +ISOSERVE_MODEL={path} isoserve serve\n", done.stdout)


def test_a_relative_save_path_is_relative_to_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--save_path", "./my models/"]) == 0
    path = tmp_path / "my models" / "model.pickle"
    assert f"ISOSERVE_MODEL='{path}' make -C {ROOT} serve\n" in capsys.readouterr().out
    assert path.exists()


def test_no_save_writes_nothing(tmp_path, capsys):
    assert main(["--no_save", "--save_path", str(tmp_path / "out")]) == 0
    assert "model.pickle" not in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_options_may_be_written_with_dashes(capsys):
    assert main(["--no-save", "--max-samples", "64"]) == 0
    assert "trees of 64 rows" in capsys.readouterr().out


def test_without_pyarrow_the_sample_works_and_a_table_is_refused_with_a_reason():
    code = """
import sys
class NoPyarrow:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "pyarrow":
            raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")
sys.meta_path.insert(0, NoPyarrow())
from training.train import main
print(main(["--no_save"]), main(["--no_save", "--dataset", "README.md"]))
"""
    done = run("-c", code)
    assert done.stdout.endswith("\n0 1\n"), done.stderr
    assert "error: README.md is read with pyarrow, which is not installed" in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--dataset kddcup", "there is no dataset 'kddcup' (is it 'kddcup99'?); give spending, "
         "kddcup99 or the path of a file or folder: CSV, Parquet or Arrow"),
        ("--dataset no/such.csv", "there is no file no/such.csv"),
        ("--samples 20001", "--samples 20001: spending has 20,000 rows"),
        ("--samples 1", "every column of spending is constant; a forest needs one that varies"),
        ("--keep_cols sdd", "there is no column 'sdd' (is it 'sd'?); columns are 'mean', 'sd'"),
        ("--contamination 0.7", "--contamination 0.7 is neither 'auto' nor a share above 0 and up "
         "to 0.5"),
        ("--max_samples 0", "--max_samples 0 is neither a share up to 1 nor a whole number above "
         "1"),
        ("--max_features 3", "--max_features 3: the table has 2 columns"),
        ("--label y", "--label goes with a table of your own, not with spending"),
        ("--no_missing", "--no_missing goes with a table of your own, not with spending"),
        ("--columns sd", "--columns goes with a table of your own, not with spending"),
        ("--sep ;", "--sep goes with a table of your own, not with spending"),
        ("--sep ;; --dataset x.csv", "--sep ;; is not a single character, or tab"),
        ("--decimal : --dataset x.csv", "--decimal : is neither . nor ,"),
        ("--full", "--full goes with kddcup99, not with spending"),
        ("--dataset my.csv --data_home .", "--data_home goes with kddcup99, not with my.csv"),
        ("--save_path out/model.pickle", "--save_path out/model.pickle: give a folder; "
         "model.pickle is written into it"),
    ],
)  # fmt: skip
def test_an_invalid_option_is_refused_with_one_sentence(
    options, sentence, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([*options.split(), "--no_save"] if "save" not in options else options.split()) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"error: {sentence}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--save", "No such option: --save (Possible options: --no_save, --save_path"),
        ("--n_estimators 0", "Invalid value for '--n_estimators'"),
        ("--seed 4294967296", "Invalid value for '--seed'"),
        ("extra", "unexpected extra argument"),
    ],
)
def test_a_usage_error_has_exit_code_2(options, words, capsys):
    assert main(options.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert captured.out == ""


def test_the_folder_is_checked_before_training(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr("training.sources.Source.read", lambda source: pytest.fail("it reads"))
    assert main(["--save_path", str(tmp_path / "file" / "models")]) == 1
    assert "file: Not a directory" in capsys.readouterr().err


def test_a_full_disk_is_reported_and_the_old_model_stays(tmp_path, monkeypatch, capsys):
    assert main(["--save_path", str(tmp_path)]) == 0
    before = (tmp_path / "model.pickle").read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["--save_path", str(tmp_path), "--seed", "1"]) == 1
    assert "model.pickle cannot be written: No space left" in capsys.readouterr().err
    assert (tmp_path / "model.pickle").read_bytes() == before


def test_ctrl_c_leaves_no_traceback_and_no_file(tmp_path):
    command = ["-m", "training.train", "--max_samples", "1.", "--n_estimators", "100000"]
    running = subprocess.Popen(
        [sys.executable, *command, "--save_path", str(tmp_path)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
        # What a shell starts in the background ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    for line in running.stderr:
        if line.startswith("fitting"):
            break
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    assert running.stderr.read() == "stopped\n"
    assert running.wait(timeout=30) == 130
    running.stderr.close()
    assert list(tmp_path.iterdir()) == []


def test_file_names_that_are_not_text_are_printed_escaped(tmp_path, monkeypatch):
    path = tmp_path / os.fsdecode(b"\xff[bold].csv")
    path.write_text('"[red]a\x1b[31m",größe\n1,2\n3,4\n', encoding="utf-8")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii", write_through=True))
    assert main(["--dataset", str(path), "--no_save"]) == 0
    expected = rb"\udcff[bold].csv, 2 rows: '[red]a\x1b[31m', 'gr\xf6\xdfe'"
    assert expected in printed.getvalue()


def test_what_became_of_each_column_is_printed(tmp_path, capsys):
    path = tmp_path / "my.csv"
    path.write_text("a;b;c\n1;2,5;x\n1;3,5;\n1;3,25;y\n")
    assert main(["--dataset", str(path), "--no_save"]) == 0
    printed = capsys.readouterr()
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert lines[:4] == [
        "column kind example gaps what is done why",
        "a constant 1 left out every number is 1",
        "b number 2,5 as it is numbers from 2.5 to 3.5",
        "c category x 33.3% 3 features text of 2 values",
    ]
    assert "my.csv: cells are separated by a semicolon" in printed.err
    assert "missing cells are trained on, and taken in requests, in 'c'" in printed.err


def test_unusual_tables_give_warnings(tmp_path, capsys):
    path = tmp_path / "my.csv"
    path.write_text("a,b\n1,2\n1,3\n")
    assert main(["--dataset", str(path), "--no_save", "--keep_cols", "a,b"]) == 0
    assert "warning: the forest cannot use constant columns: 'a'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1", 1.0), ("1.", 1.0), (".8", 0.8), ("2", 2), ("256.", 256), ("1e3", 1000)],
)
def test_amounts_up_to_1_are_shares_and_larger_ones_are_counts(text, amount):
    parsed = parse_amount("--max_samples", text)
    assert (parsed, type(parsed)) == (amount, type(amount))


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "nan", "inf", "x", ""])
def test_other_amounts_are_refused(text):
    with pytest.raises(CannotTrain):
        parse_amount("--max_features", text)


@pytest.mark.parametrize("text", ["0", "-0.1", "0.51", "nan", "inf", "x", "", "AUTO"])
def test_shares_out_of_range_are_refused(text):
    with pytest.raises(CannotTrain, match="--contamination"):
        parse_share(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("['srv_count','serror_rate','target']", ["srv_count", "serror_rate", "target"]),
        ("('a', 'b,c')", ["a", "b,c"]),
        (" [ 'a' ] ", ["a"]),
        ("mean, sd", ["mean", "sd"]),
        ("größe", ["größe"]),
    ],
)
def test_columns_are_given_as_a_list_or_separated_by_commas(text, names):
    assert parse_keep_cols(text) == names


@pytest.mark.parametrize(
    "text",
    ["", "a,,b", "[]", "['a'", "[1]", "['a', '']", "[print('x')]", "['a'] * 9", "(1)", "[" * 5000],
)
def test_other_list_expressions_are_refused_without_evaluating_them(text, capsys):
    with pytest.raises(CannotTrain, match="--keep_cols"):
        parse_keep_cols(text)
    assert capsys.readouterr().out == ""


def test_help_names_every_option_and_the_page_explains_it(capsys):
    assert main(["--help"]) == 0
    options = re.findall(r"^  (--\w+)", capsys.readouterr().out, re.MULTILINE)
    assert len(options) == 23
    page = (ROOT / "docs/guide/training.md").read_text()
    assert [option for option in options if f"`{option}" not in page] == ["--help"]


def test_the_page_explains_every_field_of_the_card(tmp_path):
    assert main(["--save_path", str(tmp_path)]) == 0
    card = json.loads((tmp_path / "model.json").read_text())
    page = (ROOT / "docs/guide/training.md").read_text()
    fields = [*card, *card["columns"][0], *card["golden"], *card["quality"]]
    assert [field for field in fields if f"`{field}`" not in page] == []


def test_the_pickle_is_a_plain_scikit_learn_forest(tmp_path):
    assert main(["--save_path", str(tmp_path)]) == 0
    with (tmp_path / "model.pickle").open("rb") as file:
        forest = pickle.load(file)
    assert forest.predict([[60.0, 50.0], [-0.153, -0.11]]).tolist() == [-1, 1]
