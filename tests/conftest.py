"""Shared fixtures: a forest whose answers can be worked out by hand, and a service around it.

Fixtures import what they need: the process that hands tests out to others needs none of it.
"""

import gc
import importlib
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
"""A file system in memory, where writing a file and waiting for the disk cost next to nothing."""


def pytest_configure():
    """Keep the tests' files in memory where there is room and programs can be run from there."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 2 * 2**30:
        runs_programs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
        tempfile.tempdir = str(MEMORY) if runs_programs else None


def pytest_collection_finish():
    """Let the garbage collector pass over what was imported, and look for garbage less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_collectstart():
    """Choose how many examples hypothesis tries, wherever tests are collected."""
    importlib.import_module("tests.support.examples")


def pytest_collection_modifyitems(items):
    """Mark the tests that start real services."""
    for item in items:
        if {"serve", "shared"} & set(item.fixturenames):
            item.add_marker(pytest.mark.server)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Keep the variables of the shell that runs the tests out of them."""
    from service.settings import LABELS, PARAMETERS, PREFIX, SELDON_VARIABLES

    for name in list(os.environ):
        if name.startswith(PREFIX) or name in {*SELDON_VARIABLES, PARAMETERS, LABELS}:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def plain_tracebacks():
    """Log tracebacks as Python prints them: in colour, each takes half a second."""
    import structlog

    *steps, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(processors=[*steps, plain])


@pytest.fixture(scope="session")
def patched_for_all_tests():
    """Undo changes at the end of the session only."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="session")
def compile_each_route_once(patched_for_all_tests):
    """Keep the functions that werkzeug compiles for each route of each application."""
    from werkzeug.routing import Rule

    builders, compile_builder = {}, Rule._compile_builder

    def compile_once(rule, append_unknown=True):
        if rule.defaults:
            return compile_builder(rule, append_unknown)
        key = rule.rule, tuple(rule._trace), append_unknown
        if key not in builders:
            builders[key] = compile_builder(rule, append_unknown)
        return builders[key]

    patched_for_all_tests.setattr(Rule, "_compile_builder", compile_once)


@pytest.fixture(scope="session")
def samples():
    """5,000 samples of two right-skewed features."""
    import numpy as np

    return np.random.default_rng(16).lognormal(size=(5000, 2))


@pytest.fixture(scope="session")
def forest(samples):
    """Five trees, fitted once."""
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=5, random_state=16).fit(samples)


@pytest.fixture
def folder(tmp_path, forest):
    """A folder with `model.pickle`, without a card."""
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(forest, protocol=5))
    return tmp_path


@pytest.fixture
def write_card(folder, forest, samples):
    """Write a card for the model in `folder`: columns mean and sd, and what a test asks for."""
    from tests.support.cards import make_card

    def write(**changes):
        content = (folder / "model.pickle").read_bytes()
        card = make_card(content, forest, samples, **changes)
        (folder / "model.json").write_text(card.to_json())
        return card

    return write


@pytest.fixture
def make_client(folder, compile_each_route_once):
    """Build the service with some settings, in a state folder of its own; return a test client."""
    from service.app import create_app
    from service.settings import Settings
    from service.web.middleware import new_id

    def make(make_puid=new_id, **settings):
        state = Path(tempfile.mkdtemp(dir=folder))
        # Few rows: a file for the default number takes tens of milliseconds to make.
        chosen = {"model": folder / "model.pickle", "state_dir": state, "records": 2_000}
        return create_app(Settings(**chosen | settings), make_puid).test_client()

    return make


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture
def serve(tmp_path):
    """Start real services, which are killed at the end and have logged no traceback then."""
    from tests.support.running import Service, expect_no_traceback

    started = []

    def start(model, **settings):
        service = Service(model, tmp_path / f"service-{len(started)}.log", **settings)
        started.append(service)
        service.wait_until_ready()
        return service

    yield start
    for service in started:
        service.kill()
    for service in started:
        expect_no_traceback(service.log)
