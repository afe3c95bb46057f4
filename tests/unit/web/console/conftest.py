"""A console over a model with a card, and rows that it has scored."""

import re

import pytest

TOKEN = "a token of the tests"
HOME = {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}


@pytest.fixture
def console(make_client, write_card, samples):
    """Return a client of a service whose model has a card; requests come from loopback."""
    quantiles = {
        name: [float(q) for q in _percentiles(samples[:, i])]
        for i, name in enumerate(("mean", "sd"))
    }
    from tests.support.cards import number

    write_card(columns=[number(name, values) for name, values in quantiles.items()])
    return Browser(make_client())


@pytest.fixture
def guarded(make_client, write_card):
    """Return a client of a service with an admin token."""
    write_card()
    return Browser(make_client(admin_token=TOKEN, host="0.0.0.0"))


def _percentiles(values):
    import numpy as np

    return np.quantile(values, np.linspace(0, 1, 101))


class Browser:
    """A client that sends what a browser sends; its cookies are kept."""

    def __init__(self, client):
        self.client = client

    def get(self, path, **headers):
        return self.client.get(path, headers=HOME | headers)

    def post(self, path, fields=(), page=None, **headers):
        """Send a form of a page: of `page`, or of the path."""
        found = re.search(r'name="form_token" value="(\w+)"', self.get(page or path).text)
        token = {"form_token": found[1]} if found else {}
        return self.client.post(path, data=token | dict(fields), headers=HOME | headers)

    def send(self, rows, puid=""):
        """Have rows scored, as a client does; return their labels."""
        if not puid:
            return self.client.post("/invocations", json={"inputs": rows}).json["predictions"]
        body = {"meta": {"puid": puid}, "data": {"ndarray": rows}}
        return self.client.post("/predict", json=body).json["data"]["ndarray"]

    def log_in(self, token=TOKEN, then=""):
        return self.post("/console/login", {"token": token, "then": then})
