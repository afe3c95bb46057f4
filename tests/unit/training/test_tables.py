from pathlib import Path

import numpy as np
import pytest

from service.errors import CannotTrain
from training.datasets import UNLABELLED
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


def kinds(dataset):
    found = {column.name: column.kind for column in dataset.columns}
    return found | {column.name: column.kind for column in dataset.left_out}


def test_numeric_columns_are_read_unchanged(write):
    dataset = from_file(write("a,b,yes\n1,2.5,True\n-3,1e3,False\n"))
    assert dataset.features == ("a", "b", "yes")
    assert dataset.types == ("int", "float", "bool")
    assert dataset.X.tolist() == [[1.0, 2.5, 1.0], [-3.0, 1000.0, 0.0]]
    assert (dataset.name, dataset.labels, dataset.left_out) == ("my.csv", None, ())


def test_columns_are_selected_by_name_in_the_requested_order(write):
    dataset = from_file(write("a,city,b\n1,Berlin,2\n3,Bonn,4\n"), keep_cols=["b", "a"])
    assert dataset.features == ("b", "a")
    assert dataset.X.tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert kinds(dataset)["city"] == "unused"


def test_a_kept_column_of_text_is_encoded(write):
    dataset = from_file(write("a,city\n1,Berlin\n3,Bonn\n3,Bonn\n"), keep_cols=["city", "a"])
    assert dataset.X.tolist() == [[0, 1, 1], [1, 0, 3], [1, 0, 3]]


@pytest.mark.parametrize("cells", [("0", "1"), ("False", "True"), ("0.0", "1.0")])
@pytest.mark.parametrize("keep_cols", [None, ["a", "y"]])
def test_the_label_is_never_a_feature(write, cells, keep_cols):
    path = write("a,y\n1,{}\n2,{}\n".format(*cells))
    dataset = from_file(path, keep_cols=keep_cols, label="y")
    assert dataset.features == ("a",)
    assert dataset.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("cells", "outlier"), [(("yes", "no"), "yes"), (("-1", "1"), "-1"), (("bad", "fine"), "bad")]
)
def test_a_label_of_other_words_is_asked_for_once(write, cells, outlier):
    path = write("a,y\n1,{}\n2,{}\n3,\n".format(*cells))
    asked = refusal(path, label="y")
    assert "say which one marks an outlier" in asked
    assert asked.endswith(f"--label_outlier {outlier}")
    dataset = from_file(path, label="y", label_outlier=outlier)
    assert dataset.labels.tolist() == [1, 0, UNLABELLED]


def test_a_partly_labelled_table_is_judged_on_the_labelled_rows(write):
    lines = [f"{i},{i % 2 if i < 50 else ''}" for i in range(200)]
    dataset = from_file(write("a,y\n" + "\n".join(lines)), label="y", columns="a:number")
    card = describe(fit_forest(dataset.X, n_estimators=2), dataset)
    assert (card.rows, card.quality.rows, card.quality.outliers) == (200, 50, 25)


def test_missing_cells_are_trained_on_unless_they_are_refused(write):
    path = write("a,b,c\n1,,x\n2,NA,\n3,4,y\n")
    dataset = from_file(path)
    np.testing.assert_array_equal(dataset.X[:, 1], [np.nan, np.nan, 4.0])
    assert [column.missing for column in dataset.columns] == [0, 2, 1]
    assert refusal(path, missing=False) == (
        "column 'b' of my.csv has 2 cells missing, the first in row 0; fill them, or train with "
        "missing cells: leave out --no_missing"
    )


def test_the_columns_option_says_what_columns_are(write):
    lines = [f"{i},{i % 3},{i % 5},x{i}" for i in range(30)]
    path = write("n,k,v,name\n" + "\n".join(lines))
    assert kinds(from_file(path)) == {"n": "running number", "k": "number", "v": "number",
                                      "name": "id"}  # fmt: skip
    dataset = from_file(path, columns="n, k:category, -v, name:text")
    assert kinds(dataset) == {"n": "number", "k": "category", "v": "unused", "name": "text"}
    assert dataset.id is None


def test_the_id_is_the_one_that_was_named_or_the_first(write):
    lines = [f"{i},x{i},{i % 3}" for i in range(30)]
    path = write("n,name,k\n" + "\n".join(lines))
    assert from_file(path).id == "name"
    assert from_file(path, id="n").id == "n"
    assert kinds(from_file(path, id="k", columns="n"))["k"] == "id"


def test_rows_are_drawn_before_columns_are_recognised(write):
    lines = [f"{i % 7},{'a' if i else 'rare'}" for i in range(100)]
    dataset = from_file(write("n,c\n" + "\n".join(lines)), samples=10, seed=1)
    assert len(dataset) == 10
    assert sum(dataset.columns[0].values.values() if dataset.columns[0].values else [10]) == 10


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b\n1,2\n3,inf\n", "column 'b' of my.csv has 1 cell infinite or above 3.4e38, the first "
         "in row 1; correct them"),
        ("a,b\n1,-1e39\n3,4\n", "column 'b' of my.csv has 1 cell infinite or above 3.4e38, the "
         "first in row 0; correct them"),
        ("a\n1\n" + "9" * 400 + "\n", "column 'a' of my.csv has 1 cell infinite or above 3.4e38, "
         "the first in row 1; correct them"),
        ("a,b\n1,2\n2,1o\n", "column 'b' holds numbers, but '1o' in row 1 of my.csv is none (1 of "
         "2 cells); correct it, or say what the column is: --columns \"b:text\", or leave it out: "
         "--columns \"-b\""),
        ("a,b\nx,y\n", "every column of my.csv is constant; a forest needs one that varies"),
        ("id\n" + "\n".join(map(str, range(20))), "my.csv has no column to train on ('id' is left "
         "out as running number); use one nevertheless: --columns \"id\""),
    ],
)  # fmt: skip
def test_an_unusable_table_is_refused_with_one_sentence(write, content, sentence):
    assert refusal(write(content)) == sentence


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        ("a,y\n1,2\n2,3\n", {"label": "y"}, "--label: column 'y' of my.csv holds '2', '3'; say "
         "which one marks an outlier, as in --label_outlier 2"),
        ("a,y\n1,0\n2,1\n", {"label": "y", "label_outlier": "x"}, "--label_outlier x: column 'y' "
         "of my.csv holds '0', '1'"),
        ("a,y\n1,\n2,\n", {"label": "y"}, "--label: column 'y' of my.csv has no value at all"),
        ("a,fraud\n1,0\n", {"label": "frauds"}, "--label: my.csv has no column 'frauds' (is it "
         "'fraud'?); columns are 'a', 'fraud'"),
        ("y\n0\n1\n", {"label": "y"}, "my.csv has no column to train on besides the label"),
        ("mean,sd\n1,2\n", {"keep_cols": ["men"]}, "there is no column 'men' (is it 'mean'?); "
         "columns are 'mean', 'sd'"),
        ("mean,sd\n1,2\n", {"columns": "men"}, "--columns: there is no column 'men' (is it "
         "'mean'?); columns are 'mean', 'sd'"),
        ("mean,sd\n1,2\n", {"columns": "mean:dat"}, "--columns: 'dat' is no kind of column (is it "
         "'date'?); kinds are number, flag, category, text, date and id"),
        ("mean,sd\n1,2\n", {"columns": "mean,mean"}, "--columns names the column 'mean' twice"),
        ("a,b\n1,x\n2,y\n", {"columns": "b:number"}, "--columns: 'b' is no number: row 0 of "
         "my.csv holds 'x'"),
        ("a,b\n1,x\n2,y\n", {"columns": "b:date"}, "--columns: 'b' is no date in one of the "
         "formats read here, such as 2026-12-31 16:42, or it never varies; its first cell is 'x'"),
        ("mean,sd\n1,2\n", {"id": "ident"}, "--id: my.csv has no column 'ident'; "
         "columns are 'mean', 'sd'"),
        ("mean,sd\n1,2\n", {"samples": 3}, "--samples 3: my.csv has 1 row"),
    ],
)  # fmt: skip
def test_an_invalid_option_is_refused_with_one_sentence(write, content, options, sentence):
    assert refusal(write(content), **options) == sentence


def test_a_file_that_cannot_be_read_stops_the_training(write):
    path = write("a\n1\n", "train.csv")
    assert refusal(path.with_name("tarin.csv")) == "there is no file tarin.csv (is it 'train.csv'?)"


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
