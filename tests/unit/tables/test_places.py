import sys

import pytest

from service.errors import BadInput
from service.tables.places import find_filesystem, find_places, is_folder, open_place


@pytest.fixture
def tables(tmp_path):
    """Return the function that makes files in a folder and returns it."""

    def make(*names, folder=tmp_path / "tables"):
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("a\n1\n")
        return folder

    return make


def found(folder, *inputs):
    return [place.replace(f"{folder}/", "") for place in find_places(inputs)]


def test_a_folder_has_its_tables_in_order_and_nothing_hidden(tables):
    folder = tables(
        "b.parquet", "a.csv", "a.csv.gz", "x/c.arrow", "notes.md", ".b.csv", "_done.csv", ".x/d.csv"
    )
    assert found(folder, str(folder)) == ["a.csv", "a.csv.gz", "b.parquet", "x/c.arrow"]
    assert is_folder(str(folder))


def test_inputs_keep_their_order_and_each_table_comes_once(tables):
    folder = tables("1.csv", "2.csv", "3.csv", "deep/4.csv")
    assert found(folder, f"{folder}/3.csv", f"{folder}/*.csv") == ["3.csv", "1.csv", "2.csv"]
    assert found(folder, f"{folder}/**/*.csv")[-1] == "deep/4.csv"
    assert find_places(["-"]) == ["-"]


def test_a_file_with_a_bracket_in_its_name_is_no_glob(tables):
    folder = tables("a[1].csv", "a1.csv")
    assert found(folder, f"{folder}/a[1].csv") == ["a[1].csv"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my.cvs", "there is no file {}/my.cvs (is it 'my.csv'?)"),
        ("*.parquet", "no file matches {}/*.parquet"),
        ("empty", "there is no table in {}/empty: no file ends in .csv"),
    ],
)
def test_an_input_without_tables_is_refused(tables, name, expected):
    folder = tables("my.csv", "empty/readme.md")
    with pytest.raises(BadInput) as refused:
        find_places([f"{folder}/{name}"])
    assert str(refused.value).startswith(expected.format(folder))


def test_addresses_are_files_globs_and_folders_as_well():
    filesystem, _ = find_filesystem("memory://lake")
    for name in ("b.csv", "a.csv", "_temporary/c.csv"):
        filesystem.pipe_file(f"/lake/{name}", b"a\n1\n")
    both = ["memory:///lake/a.csv", "memory:///lake/b.csv"]
    assert find_places(["memory://lake"]) == both
    assert find_places(["memory://lake/*.csv"]) == both
    assert is_folder("memory://lake")
    with open_place(both[0]) as file:
        assert file.read() == b"a\n1\n"
    with pytest.raises(BadInput, match=r"no file matches memory://lake/\*\.arrow"):
        find_places(["memory://lake/*.arrow"])


def test_an_address_of_an_unknown_kind_is_refused():
    with pytest.raises(BadInput, match="nowhere://a cannot be opened: Protocol not known: nowhere"):
        find_places(["nowhere://a"])


def test_without_fsspec_an_address_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(BadInput, match=r"needs fsspec.* pip install 'isoserve\[bulk\]'"):
        find_places(["s3://bucket/a.parquet"])
