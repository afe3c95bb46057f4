"""Run the notebooks from top to bottom, and render them as pages for readers without Jupyter.

    python -m training.render

writes notebooks/html/. The notebooks run in a temporary folder on a copy of notebooks/data/, with a
service of their own, so they change neither models/ nor a running service.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode

from training.client import Client

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"

STORY = ("exploration", "train", "service")  # in reading order
_SECONDS = 120


def run(name: str, folder: Path, url: str = "") -> NotebookNode:
    """Run a notebook as if it were in `folder`, and return it with its outputs.

    It reads tables from `folder/data`, writes models to `folder/../models` and asks the service at
    `url`. A cell that fails raises nbclient's CellExecutionError.
    """
    notebook: NotebookNode = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    env = {"PYTHONPATH": str(ROOT), "ISOSERVE_URL": url}
    client = NotebookClient(
        notebook,
        timeout=_SECONDS,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=40"],  # no warning about its ports on loopback
    )
    client.execute(env=os.environ | env)
    return notebook


def render(notebook: NotebookNode, title: str) -> str:
    """Return a notebook as one HTML page that loads nothing from elsewhere."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(".ipynb)", ".html)")
    exporter = HTMLExporter(
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        mathjax_url="",
        mermaid_js_url="",
        require_js_url="",
        jquery_url="",
    )
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    return str(page)


@contextmanager
def service_of(model: Path) -> Iterator[str]:
    """Serve a model on a free port of this machine, and yield the URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        "ISOSERVE_MODEL": str(model),
        "ISOSERVE_PORT": str(port),
        "ISOSERVE_STATE_DIR": str(model.parent / "state"),
        "ISOSERVE_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "service"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | env) as process:  # noqa: S603 -- ours
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process)
            yield url
        finally:
            process.terminate()


def main() -> None:
    """Run all notebooks and write their pages."""
    pages = NOTEBOOKS / "html"
    pages.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "notebooks"
        folder.mkdir()
        models = Path(scratch) / "models"
        models.mkdir()
        if (NOTEBOOKS / "data").is_dir():
            shutil.copytree(NOTEBOOKS / "data", folder / "data")
        *first, last = STORY
        for name in first:
            _write_page(pages, name, run(name, folder))
        with service_of(models / "model.pickle") as url:
            _write_page(pages, last, run(last, folder, url))


def _write_page(pages: Path, name: str, notebook: NotebookNode) -> None:
    page = pages / f"{name}.html"
    page.write_text(render(notebook, f"isoserve: {name}"), encoding="utf-8")
    print(page)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < limit:
        try:
            Client(url).get("/ready")
        except (ConnectionError, ValueError):  # not there, or not ready
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the service at {url} did not start; its log is above")


if __name__ == "__main__":
    main()
