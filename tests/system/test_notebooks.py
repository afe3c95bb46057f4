"""Run the notebooks from top to bottom: on the sample, and on a real table if there is one.

Tests that need nbconvert import it themselves and are slow: the import takes six seconds.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
LOVOO = Path(__file__).parents[3] / "shared/data/lovoo"

FIGURES = {
    "spending": [],
    "four columns": ["the plots show 'b', 'd'; name two others to see 'a', 'c'"],
    "a mixed table": ["the plots show 'amount', 'merchant = casino'; name two others to see "],
    "lovoo": [
        "base model: 10,108 of 64,227 training rows are outliers",
        "base model: 2,576 of 16,057 test rows are outliers",
        "contamination 0.001: 61 of 64,227 training rows are outliers",
        "contamination 0.001: 13 of 16,057 test rows are outliers",
        "lowest score on the grid: -0.371078126851377",
    ],
}


def mixed_table(seed):
    """Return payments with an id, text, dates and gaps; 3 % are large ones in a casino."""
    random, n = np.random.default_rng(seed), 500
    table = pd.DataFrame(
        {
            "payment_id": [f"P{seed}-{i:05d}" for i in range(n)],
            "amount": random.lognormal(3, 0.5, n).round(2),
            "merchant": random.choice(["grocer", "baker", "garage"], n, p=[0.6, 0.3, 0.1]),
            "when": pd.date_range("2026-06-01 08:00", periods=n, freq="37min").astype(str),
            "age": random.integers(18, 80, n),
        }
    )
    table.loc[:14, ["amount", "merchant"]] = 900.0, "casino"
    table["age"] = table["age"].astype("Int64").mask(random.random(n) < 0.05)
    table["amount"] = table["amount"].mask(random.random(n) < 0.05)
    return table.sample(frac=1, random_state=seed)


def printed(notebook):
    """Return what an executed notebook printed, after checking that stderr is empty."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    streams = [output for output in outputs if output.output_type == "stream"]
    assert [output.text for output in streams if output.name != "stdout"] == []
    return "".join(output.text for output in streams)


def fetched(page):
    """Return what a page loads from other sites."""
    return re.findall(r"""<(?:script|link|img)[^>]*\s(?:src|href)=["']?https?:[^>]*""", page)


def pictures(notebook):
    """Return the number of plots in an executed notebook."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum(
        "image/png" in output.get("data", {}) or "Plotly.newPlot" in str(output.get("data", {}))
        for output in outputs
    )


@pytest.mark.slow
def test_the_reading_order_lists_every_notebook():
    from training.render import STORY

    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(STORY)


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_notebooks_are_committed_without_outputs(name):
    content = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    assert content["metadata"].keys() == {"kernelspec", "language_info"}
    for cell in content["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert not re.search(r"^\s*(def|class) ", "".join(cell["source"]), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("table", FIGURES)
def test_the_notebooks_run_from_top_to_bottom(table, tmp_path, serve, monkeypatch):
    from training.render import render, run

    folder = tmp_path / "notebooks"
    folder.mkdir()
    (tmp_path / "models").mkdir()
    if table == "lovoo":
        if not LOVOO.is_dir():
            pytest.skip("the LOVOO table is not here")
        shutil.copytree(LOVOO, folder / "data", copy_function=shutil.copyfile)

    if table == "four columns":
        (folder / "data").mkdir()
        for name in ("train.csv", "test.csv"):
            rows = np.random.default_rng(len(name)).lognormal(size=(500, 4)) * [1, 9, 1, 1]
            rows[:10, [1, 3]] *= 50
            pd.DataFrame(rows, columns=list("abcd")).to_csv(folder / "data" / name, index=False)

    if table == "a mixed table":
        (folder / "data").mkdir()
        for name in ("train.csv", "test.csv"):
            mixed_table(len(name)).to_csv(folder / "data" / name, index=False)

    exploration = run("exploration", folder)
    assert pictures(exploration) == 3
    train = run("train", folder)
    assert pictures(train) == 5
    for notebook in (exploration, train):
        assert fetched(render(notebook, "a title")) == []
    assert any("IsolationForest(random_state=16).fit(" in cell.source for cell in train.cells)
    for line in FIGURES[table]:
        assert f"\n{line}" in f"\n{printed(train)}"
    models = {path.name for path in (tmp_path / "models").iterdir()}
    assert models == {"model.pickle", "model.json", "model.joblib"}

    monkeypatch.setenv("ISOSERVE_API_KEY", "a-key-of-24-characters-ok")
    service = serve(tmp_path / "models/model.pickle")
    talk = run("service", folder, f"http://127.0.0.1:{service.port}")
    assert pictures(talk) == 1
    assert re.search(r"400\nrow 1 has \d columns?, row 0 has \d\n", printed(talk))
    assert "isoserve_samples_total" in json.dumps(talk.cells)


@pytest.mark.slow
def test_an_exported_page_loads_nothing_and_links_to_exported_pages():
    import nbformat

    from training.render import render

    cell = nbformat.v4.new_markdown_cell("on to [train](train.ipynb)")
    page = render(nbformat.v4.new_notebook(cells=[cell]), "a title")
    assert "<title>a title</title>" in page
    assert 'href="train.html"' in page
    assert fetched(page) == []
