"""Shared fixtures: a forest whose answers can be worked out by hand, and a service around it.

Fixtures import what they need: the process that hands tests out to others needs none of it.
"""

import importlib
import os
import pickle
import tempfile
from pathlib import Path

import pytest


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
def make_client(folder):
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
    """Start real services; what still runs at the end of the test is killed."""
    from tests.support.running import Service

    started = []

    def start(model, **settings):
        service = Service(model, tmp_path / f"service-{len(started)}.log", **settings)
        started.append(service)
        service.wait_until_ready()
        return service

    yield start
    for service in started:
        service.kill()
