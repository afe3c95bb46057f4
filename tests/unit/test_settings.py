import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import BadSetting
from service.settings import SELDON_VARIABLES, Settings, describe_settings, unknown_variables
from service.threshold_choice import ThresholdChoice


def test_defaults_serve_the_default_model_on_loopback():
    settings = Settings.read()
    assert (settings.host, settings.port, settings.threshold) == ("127.0.0.1", 8000, 0.0)
    assert settings.model == Path("models/model.pickle")


def test_every_setting_has_a_default_and_a_meaning():
    assert all(meaning for _, _, meaning in describe_settings())
    assert ("ISOSERVE_PORT", "8000", "port to listen on") in describe_settings()


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("ISOSERVE_PORT", "8123")
    monkeypatch.setenv("ISOSERVE_REQUIRE_CARD", "1")
    monkeypatch.setenv("ISOSERVE_LOG_LEVEL", "debug")
    settings = Settings.read()
    assert (settings.port, settings.require_card, settings.log_level) == (8123, True, "DEBUG")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ISOSERVE_PORT", "http", "ISOSERVE_PORT='http': input should be a valid integer"),
        ("ISOSERVE_PORT", "70000", "ISOSERVE_PORT='70000': input should be less than"),
        ("PREDICTOR_LABELS", '{"version": 7}', "PREDICTOR_LABELS: version is not a string"),
        (
            "PREDICTIVE_UNIT_PARAMETERS",
            '[{"name": "load_path", "value": 5}]',
            "PREDICTIVE_UNIT_PARAMETERS: each parameter is",
        ),
        ("ISOSERVE_THRESHOLD", "nan", "ISOSERVE_THRESHOLD='nan': input should be a finite number"),
        ("ISOSERVE_NAMES", "any", "ISOSERVE_NAMES='any': input should be 'match' or 'position'"),
        ("GUNICORN_THREADS", "many", "GUNICORN_THREADS='many': input should be a valid integer"),
        ("PREDICTIVE_UNIT_PARAMETERS", "{", "PREDICTIVE_UNIT_PARAMETERS is not JSON"),
        ("PREDICTIVE_UNIT_PARAMETERS", "{}", "PREDICTIVE_UNIT_PARAMETERS is not a JSON list"),
        ("PREDICTIVE_UNIT_PARAMETERS", "[1]", "PREDICTIVE_UNIT_PARAMETERS: each parameter is"),
    ],
)
def test_an_invalid_setting_is_named(monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting) as refusal:
        Settings.read()
    assert words in str(refusal.value)


def parameters(monkeypatch, **values):
    types = {"threshold": "FLOAT"}
    given = [
        {"name": name, "value": value, "type": types.get(name, "STRING")}
        for name, value in values.items()
    ]
    monkeypatch.setenv("PREDICTIVE_UNIT_PARAMETERS", json.dumps(given))


def test_our_variables_override_seldons(monkeypatch):
    parameters(monkeypatch, threshold="0.1", load_path="/mnt/models")
    monkeypatch.setenv("PREDICTIVE_UNIT_HTTP_SERVICE_PORT", "9000")
    monkeypatch.setenv("PREDICTIVE_UNIT_ID", "clf")
    monkeypatch.setenv("PREDICTOR_LABELS", '{"version": "v7"}')
    settings = Settings.read()
    assert (settings.threshold, settings.port, settings.model_name) == (0.1, 9000, "clf")
    assert settings.model == Path("/mnt/models/model.pickle")
    assert settings.predictor_version == "v7"
    monkeypatch.setenv("ISOSERVE_THRESHOLD", "-0.2")
    monkeypatch.setenv("ISOSERVE_PORT", "8000")
    settings = Settings.read()
    assert (settings.threshold, settings.port) == (-0.2, 8000)


def test_an_invalid_seldon_parameter_is_named(monkeypatch):
    parameters(monkeypatch, threshold="low")
    with pytest.raises(BadSetting, match=r"^PREDICTIVE_UNIT_PARAMETERS: threshold='low': input "):
        Settings.read()
    monkeypatch.setenv("ISOSERVE_THRESHOLD", "lower")
    with pytest.raises(BadSetting, match=r"^ISOSERVE_THRESHOLD='lower': input "):
        Settings.read()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("treshold", "FLOAT", "there is no parameter 'treshold' (is it 'threshold'?); there are"),
        ("threshold", "STRING", "threshold is of the type 'STRING'; it is FLOAT or DOUBLE or INT"),
        ("threshold", "DECIMAL", "threshold is of the type 'DECIMAL'; it is FLOAT or DOUBLE or"),
        ("load_path", "INT", "load_path is of the type 'INT'; it is STRING"),
        ("threshold", None, "each parameter is an object with name, value and type, all strings"),
    ],
)
def test_an_unknown_component_parameter_ends_the_start(monkeypatch, name, kind, words):
    given = [{"name": name, "value": "0", "type": kind}]
    monkeypatch.setenv("PREDICTIVE_UNIT_PARAMETERS", json.dumps(given))
    with pytest.raises(BadSetting) as refusal:
        Settings.read()
    assert str(refusal.value).startswith(f"PREDICTIVE_UNIT_PARAMETERS: {words}")


def test_a_share_and_a_threshold_together_are_refused(monkeypatch):
    monkeypatch.setenv("ISOSERVE_OUTLIER_SHARE", "0.005")
    assert Settings.read().choice == ThresholdChoice(share=0.005)
    monkeypatch.setenv("ISOSERVE_THRESHOLD", "0")
    with pytest.raises(
        BadSetting, match=r"ISOSERVE_THRESHOLD=0\.0 and ISOSERVE_OUTLIER_SHARE=0\.005"
    ):
        Settings.read()


def test_our_share_overrides_seldons_threshold_and_seldon_may_send_a_share(monkeypatch):
    parameters(monkeypatch, threshold="0.1")
    monkeypatch.setenv("ISOSERVE_OUTLIER_SHARE", "0.005")
    assert Settings.read().choice == ThresholdChoice(share=0.005)
    monkeypatch.delenv("ISOSERVE_OUTLIER_SHARE")
    monkeypatch.setenv("PREDICTIVE_UNIT_PARAMETERS", '[{"name": "outlier_share", "value": "0.02", '
                       '"type": "FLOAT"}]')  # fmt: skip
    assert Settings.read().choice == ThresholdChoice(share=0.02)
    monkeypatch.setenv("ISOSERVE_THRESHOLD", "-0.1")
    assert Settings.read().choice == ThresholdChoice(-0.1)


@pytest.mark.parametrize("share", ["0", "1", "-0.1", "5%", "nan"])
def test_a_share_is_above_0_and_below_1(monkeypatch, share):
    monkeypatch.setenv("ISOSERVE_OUTLIER_SHARE", share)
    with pytest.raises(BadSetting, match=r"^ISOSERVE_OUTLIER_SHARE='"):
        Settings.read()


def test_a_misspelt_variable_is_refused_with_the_nearest_name(monkeypatch):
    monkeypatch.setenv("ISOSERVE_TRESHOLD", "1")
    assert unknown_variables() == [
        "ISOSERVE_TRESHOLD is no setting of isoserve (is it 'ISOSERVE_THRESHOLD'?)"
    ]


def test_settings_are_immutable():
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_variables_that_kubernetes_sets_for_a_service_are_ignored(monkeypatch):
    monkeypatch.setenv("ISOSERVE_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("ISOSERVE_PORT_8000_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("ISOSERVE_SERVICE_HOST", "10.0.0.1")
    assert Settings.read().port == 8000
    assert unknown_variables() == []


@pytest.mark.parametrize(
    ("token", "file", "words"),
    [
        ("short", None, "ADMIN_TOKEN: a token has 16 or more"),
        ("x" * 16 + "ü", None, "of ASCII"),
        ("", "none", "ADMIN_TOKEN_FILE=.*cannot be read"),
        ("", "empty", "ADMIN_TOKEN_FILE=.*has 16 or more"),
        ("x" * 16, "empty", "choose one of them"),
    ],
)
def test_an_invalid_token_is_refused_and_not_printed(tmp_path, token, file, words):
    (tmp_path / "empty").touch()
    settings = Settings(admin_token=token, admin_token_file=file and tmp_path / file)
    assert not token or token not in repr(settings)
    with pytest.raises(BadSetting, match=words) as refusal:
        settings.read_admin_token()
    assert not token or token not in str(refusal.value)


@pytest.mark.parametrize("value", ["", " ", "\r"])
def test_an_empty_variable_is_one_that_is_not_set(monkeypatch, value):
    for name, _, _ in describe_settings():
        monkeypatch.setenv(name, value)
    for name in SELDON_VARIABLES:
        monkeypatch.setenv(name, value)
    assert Settings.read() == Settings.model_construct()


def test_blanks_and_line_ends_around_a_value_are_no_part_of_it(monkeypatch):
    monkeypatch.setenv("ISOSERVE_STATE_DIR", " /srv/state\r")
    monkeypatch.setenv("ISOSERVE_PORT", "8001\r\n")
    settings = Settings.read()
    assert (str(settings.state_dir), settings.port) == ("/srv/state", 8001)
