from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.errors import CannotTrain
from training.export import describe
from training.forest import fit_forest
from training.tables import from_file

SHARED = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture
def write(tmp_path):
    """Write a file into a folder of its own and return its path."""

    def write(content, name="my.csv"):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return write


def refusal(path, **options):
    """Return the sentence that a table is refused with, without the folder."""
    with pytest.raises(CannotTrain) as caught:
        from_file(path, **options)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_numeric_columns_are_read_unchanged(write):
    dataset = from_file(write("a,b,yes\n1,2.5,True\n-3,1e3,False\n"))
    assert dataset.features == ("a", "b", "yes")
    assert dataset.types == ("int", "float", "bool")
    assert dataset.X.tolist() == [[1.0, 2.5, 1.0], [-3.0, 1000.0, 0.0]]
    assert (dataset.name, dataset.labels, dataset.allow_missing) == ("my.csv", None, False)


def test_columns_are_selected_by_name_in_the_requested_order(write):
    dataset = from_file(write("a,city,b\n1,Berlin,2\n3,Bonn,4\n"), keep_cols=["b", "a"])
    assert dataset.features == ("b", "a")
    assert dataset.X.tolist() == [[2.0, 1.0], [4.0, 3.0]]


@pytest.mark.parametrize("cells", [("0", "1"), ("False", "True"), ("0.0", "1.0")])
@pytest.mark.parametrize("keep_cols", [None, ["a", "y"]])
def test_the_label_is_never_a_feature(write, cells, keep_cols):
    path = write("a,y\n1,{}\n2,{}\n".format(*cells))
    dataset = from_file(path, keep_cols, label="y")
    assert dataset.features == ("a",)
    assert dataset.labels.tolist() == [0, 1]


def test_missing_cells_are_kept_if_allowed(write):
    dataset = from_file(write("a,b\n1,\n2,NA\n3,4\n"), allow_missing=True)
    np.testing.assert_array_equal(dataset.X[:, 1], [np.nan, np.nan, 4.0])
    assert dataset.allow_missing


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b\n1,2\n3\n", "column 'b' of my.csv has 1 cell missing, the first in row 1; fill them, "
         "or train with missing cells: --allow_missing"),
        ("a,b,c\n1,,\n3,,2\n", "column 'b' of my.csv has 2 cells missing, the first in row 0 "
         "(also in 'c'); fill them, or train with missing cells: --allow_missing"),
        ("a,b\n1,2\n3,inf\n", "column 'b' of my.csv has 1 cell infinite or above 3.4e38, the first "
         "in row 1; correct them"),
        ("a,b\n1,-1e39\n3,4\n", "column 'b' of my.csv has 1 cell infinite or above 3.4e38, the "
         "first in row 0; correct them"),
        ("a\n1\n" + "9" * 400 + "\n", "column 'a' of my.csv holds too large a number"),
        ("a,city,b\n1,Bonn,2\n", "column 'city' of my.csv holds text, such as 'Bonn' in row 0; "
         "correct it, or leave it out: --keep_cols a,b"),
        ("a,b\n1,2\n2,1o\n", "column 'b' of my.csv holds text, such as '1o' in row 1; correct "
         "it, or leave it out: --keep_cols a"),
        ("a,b,c\nx,1,y\n", "column 'a' of my.csv holds text, such as 'x' in row 0 (also in "
         "'c'); correct it, or leave it out: --keep_cols b"),
        ('a b,"c,d",e\n1,2,x\n', "column 'e' of my.csv holds text, such as 'x' in row 0; correct "
         "it, or leave it out: --keep_cols '['\"'\"'a b'\"'\"', '\"'\"'c,d'\"'\"']'"),
        ("a,b\nx,y\n", "my.csv has no numeric column, only 'a', 'b'"),
        ("a;b\n1;2\n", "my.csv has no numeric column, only 'a;b'; are its cells separated by "
         "commas?"),
        (",a\n0,5\n", "column 0 of my.csv has no name; if it is an index that was saved with the "
         "table, leave it out: --keep_cols a"),
    ],
)  # fmt: skip
def test_an_unusable_table_is_refused_with_one_sentence(write, content, sentence):
    assert refusal(write(content)) == sentence


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        ("a,y\n1,2\n", {"label": "y"}, "--label: column 'y' of my.csv holds 2 in row 0; a label is "
         "0, or 1 for an outlier"),
        ("a,y\n1,0\n2,\n", {"label": "y"}, "--label: column 'y' of my.csv holds nothing in row 1; "
         "a label is 0, or 1 for an outlier"),
        ("a,y\n1,ok\n", {"label": "y"}, "--label: column 'y' of my.csv holds 'ok' in row 0; a "
         "label is 0, or 1 for an outlier"),
        ("a,fraud\n1,0\n", {"label": "frauds"}, "--label: my.csv has no column 'frauds' (is it "
         "'fraud'?)"),
        ("y\n0\n1\n", {"label": "y"}, "my.csv has no column to train on besides the label"),
        ("mean,sd\n1,2\n", {"keep_cols": ["men"]}, "there is no column 'men' (is it 'mean'?); "
         "columns are 'mean', 'sd'"),
    ],
)  # fmt: skip
def test_an_invalid_option_is_refused_with_one_sentence(write, content, options, sentence):
    assert refusal(write(content), **options) == sentence


def test_the_suggested_option_works_as_pasted(write):
    path = write(",a,b\n0,1,2\n1,3,4\n")
    assert refusal(path).endswith("--keep_cols a,b")
    assert from_file(path, keep_cols=["a", "b"]).features == ("a", "b")


def test_a_file_that_cannot_be_read_stops_the_training(write):
    path = write("a\n1\n", "train.csv")
    assert refusal(path.with_name("tarin.csv")) == "there is no file tarin.csv (is it 'train.csv'?)"


def test_dates_are_refused_like_text(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"a": [1.0], "when": pd.to_datetime(["2026-01-02"])}).to_parquet(path)
    assert refusal(path).startswith("column 'when' of t.parquet holds no numbers, such as 2026-01")


@pytest.mark.parametrize(
    ("name", "auc"),
    [
        pytest.param("mammography", 0.859, marks=pytest.mark.slow),
        pytest.param("shuttle", 0.997, marks=pytest.mark.slow),
        ("breastw", 0.988),
        ("cardio", 0.932),
    ],
)
def test_real_tables_are_ranked_like_scikit_learn(name, auc):
    path = SHARED / name / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"the {name} table is not here")
    dataset = from_file(path, label="label")
    found = [describe(fit_forest(dataset.X, seed=s), dataset).quality.roc_auc for s in range(5)]
    assert abs(np.mean(found) - auc) < 0.005


def test_the_lovoo_sample_gives_the_figures_others_found():
    if not (SHARED / "lovoo").exists():
        pytest.skip("the LOVOO sample is not here")
    train, test = (from_file(SHARED / "lovoo" / f"{name}.csv") for name in ("train", "test"))
    forest = fit_forest(train.X, contamination=0.001, seed=16)
    assert forest.score_samples([[0.1234, 0.1234]]) == -0.5968904587109694
    assert (forest.decision_function(train.X) < 0).sum() == 61
    assert (forest.decision_function(test.X) < 0).sum() == 13
