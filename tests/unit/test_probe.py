import pytest

from service.probe import read_address
from service.settings import Settings
from tests.support.running import free_port, run_python

LINK = "tcp://10.96.0.1:8000"  # of a Kubernetes service called isoserve
SELDON = "PREDICTIVE_UNIT_HTTP_SERVICE_PORT"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"ISOSERVE_PORT": "9001"},
        {"ISOSERVE_PORT": LINK},
        {SELDON: "9002"},
        {"ISOSERVE_PORT": LINK, SELDON: "9002"},
        {"ISOSERVE_PORT": "9001", SELDON: "9002"},
        {"ISOSERVE_HOST": "127.0.0.2", SELDON: ""},
    ],
)
def test_the_probe_asks_at_the_address_of_the_settings(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert read_address(variables) == (settings.host, settings.port)


@pytest.mark.parametrize(
    ("host", "asked"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("[::]", "::1"), ("::1", "::1"), ("", "127.0.0.1")],
)
def test_a_service_on_every_interface_is_asked_on_this_machine(host, asked):
    assert read_address({"ISOSERVE_HOST": host}) == (asked, 8000)


def test_the_probe_tells_a_ready_service_from_none(folder, serve):
    service = serve(folder / "model.pickle")
    kubernetes = {"ISOSERVE_PORT": LINK, SELDON: str(service.port)}
    ready = run_python(("-m", "service.probe"), folder, **kubernetes)
    assert (ready.returncode, ready.stdout) == (0, '200 {"ready":true}\n')
    nobody = run_python(("-m", "service.probe"), folder, ISOSERVE_PORT=str(free_port()))
    assert (nobody.returncode, nobody.stdout.startswith("no answer from 127.0.0.1")) == (1, True)
