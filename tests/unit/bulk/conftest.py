"""A model of a mixed table, and the command `score`."""

import pytest
from typer.testing import CliRunner

from tests.support.mixed import train


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """A folder with `my.csv` and a model of it."""
    return train(tmp_path_factory.mktemp("mixed"))


@pytest.fixture
def detector(mixed):
    from service.model.file import load_model
    from service.serving.detector import Detector

    return Detector(load_model(mixed / "model.pickle"), -0.02)


@pytest.fixture
def score(mixed, monkeypatch, tmp_path):
    """Run the command in a folder of its own; return its exit code and what it said."""
    from service.__main__ import cli

    monkeypatch.setenv("ISOSERVE_MODEL", str(mixed / "model.pickle"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **options):
        result = CliRunner().invoke(cli, ["score", *map(str, arguments)], **options)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, " ".join(result.output.split())

    return run
