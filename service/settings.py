"""The settings, read once at the start from variables that begin with ISOSERVE_."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from .errors import BadSetting, nearest
from .files import read_regular
from .threshold_choice import ThresholdChoice

PREFIX = "ISOSERVE_"

_SHORTEST_TOKEN, _MOST_SECRET = 16, 2**16  # characters, bytes of the file

# Seldon's own variables -> the setting that each one provides, unless ours is set.
SELDON_VARIABLES = {
    "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": "port",
    "PREDICTIVE_UNIT_ID": "model_name",
    "PREDICTIVE_UNIT_IMAGE": "model_image",
    "SELDON_DEPLOYMENT_ID": "deployment_name",
    "PREDICTOR_ID": "predictor_name",
    "GUNICORN_WORKERS": "workers",
    "GUNICORN_THREADS": "threads",
    "GUNICORN_KEEPALIVE": "keepalive",
    "GUNICORN_ACCESS_LOG": "access_log",
    "INCLUDE_METRICS_IN_CLIENT_RESPONSE": "answer_metrics",
    "SELDON_LOG_LEVEL": "log_level",
}
PARAMETERS = "PREDICTIVE_UNIT_PARAMETERS"
LABELS = "PREDICTOR_LABELS"

# A component's arguments -> the Seldon types that each may have.
_NUMBER = ("FLOAT", "DOUBLE", "INT")
PARAMETER_TYPES = {"threshold": _NUMBER, "outlier_share": _NUMBER, "load_path": ("STRING",)}

_CHOICES = ("threshold", "outlier_share")

# Kubernetes sets these, and ISOSERVE_PORT=tcp://..., for a Kubernetes service named "isoserve".
_KUBERNETES = re.compile(PREFIX + r"(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP)\w*)")

LowerCase = BeforeValidator(lambda text: text.lower() if isinstance(text, str) else text)
WithoutBrackets = BeforeValidator(
    lambda text: text[1:-1] if re.fullmatch(r"\[.*\]", str(text)) else text
)
UpperCase = BeforeValidator(lambda text: text.upper() if isinstance(text, str) else text)


class Settings(BaseSettings):
    """The choices of an operator. `Settings.read()` reads the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", protected_namespaces=()
    )

    host: Annotated[str, WithoutBrackets] = Field(
        "127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 means every interface"
    )
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    # State files have room for 64 processes: while gunicorn reloads, every worker runs twice.
    workers: int = Field(2, ge=1, le=32, description="worker processes")
    threads: int = Field(
        3,
        ge=1,
        le=256,
        description="threads per worker for large bodies, and as many for other routes",
    )
    timeout: int = Field(
        30,
        ge=1,
        description="seconds after which a request hangs, or a client is too slow to send its body "
        "or to read its answer",
    )
    keepalive: int = Field(
        5, ge=0, description="seconds an idle connection stays open after a request"
    )
    model: Path = Field(
        Path("models/model.pickle"),
        description="IsolationForest to serve: a pickle or a joblib file",
    )
    model_name: str = Field(
        "isoserve",
        pattern=r"^[^/?#%\s]+$",
        description="name of the model in paths, metadata and metrics",
    )
    model_sha256: Annotated[str, LowerCase] = Field(
        "", pattern="^([0-9a-f]{64})?$", description="refuse a model file with any other SHA-256"
    )
    require_card: bool = Field(False, description="refuse a model file without a matching card")
    threshold: float = Field(
        0.0, allow_inf_nan=False, description="a row with a score below this is an outlier"
    )
    outlier_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of rows like training's to flag; it sets the threshold, also of the "
        "next model",
    )
    names: Literal["match", "position"] = Field(
        "match", description="match: find columns by name, in any order; position: ignore names"
    )
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="largest request body, in bytes")
    max_rows: int = Field(200_000, ge=1, description="most rows in one request")
    max_columns: int = Field(4_096, ge=1, description="most columns in one request")
    max_depth: int = Field(8, ge=4, le=1000, description="deepest nesting of JSON in a request")
    rows_in_flight: int = Field(
        200_000,
        ge=1,
        description="approximate limit of rows in flight per worker; beyond it requests get 503",
    )
    drain_seconds: float = Field(
        5, ge=0, le=3600, description="seconds to keep answering, but not be ready, before a stop"
    )
    api_key: SecretStr = Field(
        SecretStr(""), description="key that all routes but health checks require; empty: no key"
    )
    api_key_file: Path | None = Field(None, description="file that holds the API key")
    state_dir: Path = Field(Path("state"), description="folder for counts, records and feedback")
    records: int = Field(
        100_000, ge=0, le=100_000_000, description="scored rows to keep a record of; 0 keeps none"
    )
    record_values: bool = Field(
        True, description="record the values of each row, not only its score"
    )
    window: int = Field(
        100, ge=1, le=10_000, description="rows with feedback that the rolling figures cover"
    )
    feedback_days: int = Field(
        0, ge=0, le=100_000, description="days to keep feedback; 0 keeps it forever"
    )
    watch: bool = Field(False, description="load the model file again when its card changes")
    admin_token: SecretStr = Field(
        SecretStr(""),
        description="token for the routes that load a model or set the threshold; empty: no routes",
    )
    admin_token_file: Path | None = Field(None, description="file that holds the admin token")
    console: bool = Field(True, description="serve the console, /console; off: do not")
    console_hosts: str = Field(
        "",
        description="names by which browsers reach the console, beside its address, as "
        "`a.example,b.example`",
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], UpperCase] = Field(
        "INFO", description="lowest level that is logged"
    )
    access_log: bool = Field(False, description="log a line for each request")
    answer_metrics: bool = Field(True, description="include the gauges in each Seldon response")
    model_image: str = Field("", description="image as name:version, for Seldon's labels")
    deployment_name: str = Field("", description="name of the deployment, for Seldon's labels")
    predictor_name: str = Field("", description="name of the predictor, for Seldon's labels")
    predictor_version: str = Field("", description="version of the predictor, for Seldon's labels")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: arguments, ISOSERVE_ variables, Seldon's variables."""
        texts = {name: str(text).strip() for name, text in env_settings().items()}
        ours = {name: text for name, text in texts.items() if text}  # empty is not set
        if str(ours.get("port", "")).startswith("tcp://"):  # Kubernetes set it
            del ours["port"]
        seldons = _read_seldon()
        if "threshold" in ours or "outlier_share" in ours:  # in any case the choice is ours
            seldons = {name: seldons[name] for name in seldons if name not in _CHOICES}
        return init_settings, InitSettingsSource(settings_cls, seldons | ours)

    @model_validator(mode="after")
    def _check_choice(self) -> Settings:
        if self.outlier_share is not None and "threshold" in self.model_fields_set:
            threshold, share = map(_variable, _CHOICES)
            raise ValueError(
                f"{threshold}={self.threshold} and {share}={self.outlier_share} are both set; "
                "a share has a threshold of its own: choose one of them"
            )
        return self

    @property
    def choice(self) -> ThresholdChoice:
        """What rows are flagged by."""
        if self.outlier_share is None:
            return ThresholdChoice(self.threshold)
        return ThresholdChoice(share=self.outlier_share)

    @classmethod
    def read(cls) -> Settings:
        """Read the environment; BadSetting names each variable that is wrong."""
        try:
            return cls()
        except ValidationError as error:
            raise BadSetting("; ".join(_sentence(fault) for fault in error.errors())) from error

    def read_api_key(self) -> str:
        """Return the key that all routes but health checks require, empty if there is none.

        Raises:
            BadSetting: its file cannot be read, or it is too short to be a secret.
        """
        return _read_secret("API_KEY", self.api_key, self.api_key_file)

    def read_admin_token(self) -> str:
        """Return the admin token, empty if there is none; raises as `read_api_key` does."""
        return _read_secret("ADMIN_TOKEN", self.admin_token, self.admin_token_file)


def unknown_variables(found: Mapping[str, str] = os.environ) -> list[str]:
    """Return a sentence for each ISOSERVE_ variable in the environment that is not a setting."""
    variables = [PREFIX + name.upper() for name in Settings.model_fields]
    return [
        f"{name} is no setting of isoserve{nearest(name, variables)}"
        for name in sorted(found)
        if name.startswith(PREFIX) and name not in variables and not _KUBERNETES.fullmatch(name)
    ]


def describe_settings() -> list[tuple[str, str, str]]:
    """Return (variable, default, meaning) of each setting, for help texts and docs/reference.md."""
    return [
        (PREFIX + name.upper(), _format_default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _read_secret(name: str, value: SecretStr, file: Path | None) -> str:
    """Return a secret from its variable or its file, empty if there is neither."""
    name, secret = PREFIX + name, value.get_secret_value()
    if file is not None:
        if secret:
            raise BadSetting(f"{name}_FILE={file}: {name} is set as well; choose one of them")
        name = f"{name}_FILE={file}"
        try:
            secret = read_regular(file, _MOST_SECRET).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BadSetting(f"{name}: cannot be read ({reason})") from error
    elif not secret:
        return ""
    if len(secret) < _SHORTEST_TOKEN or not (secret.isascii() and secret.isprintable()):
        raise BadSetting(
            f"{name}: a token has {_SHORTEST_TOKEN} or more characters of ASCII; "
            "make one with `openssl rand -hex 32`"
        )
    return secret


def _read_seldon() -> dict[str, Any]:
    """Return the settings that Seldon's operator puts into a microservice's environment."""
    fields = {
        field: os.environ[name].strip()
        for name, field in SELDON_VARIABLES.items()
        if os.environ.get(name, "").strip()
    }
    return fields | _from_parameters() | _from_labels()


def _from_parameters() -> dict[str, Any]:
    """Read the constructor arguments: [{"name": "threshold", "value": "0.1", "type": "FLOAT"}]."""
    found = {}
    for parameter in _json_variable(PARAMETERS, list):
        fields = parameter if isinstance(parameter, dict) else {}
        texts: list[Any] = [fields.get(key) for key in ("name", "value", "type")]
        if not all(isinstance(text, str) for text in texts):
            fault = "each parameter is an object with name, value and type, all strings"
            raise BadSetting(f"{PARAMETERS}: {fault}")
        name, value, type_ = texts
        if name not in PARAMETER_TYPES:
            hint, names = nearest(name, list(PARAMETER_TYPES)), " and ".join(PARAMETER_TYPES)
            raise BadSetting(
                f"{PARAMETERS}: there is no parameter {name!r}{hint}; there are {names}"
            )
        if type_ not in PARAMETER_TYPES[name]:
            types = " or ".join(PARAMETER_TYPES[name])
            raise BadSetting(f"{PARAMETERS}: {name} is of the type {type_!r}; it is {types}")
        if name in _CHOICES:
            found[name] = value
        else:
            found["model"] = str(Path(value) / "model.pickle")
    return found


def _from_labels() -> dict[str, Any]:
    labels = _json_variable(LABELS, dict)
    if not isinstance(labels.get("version", ""), str):
        raise BadSetting(f"{LABELS}: version is not a string")
    return {"predictor_version": labels["version"]} if "version" in labels else {}


def _json_variable(name: str, kind: type) -> Any:
    text = os.environ.get(name)
    if not text:
        return kind()
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadSetting(f"{name} is not JSON: {error}") from error
    if not isinstance(value, kind):
        raise BadSetting(f"{name} is not a JSON {'list' if kind is list else 'object'}")
    return value


def _sentence(fault: Any) -> str:
    if not fault["loc"]:
        return str(fault["msg"]).removeprefix("Value error, ")
    name = str(fault["loc"][0])
    return f"{_variable(name)}={fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _variable(field: str) -> str:
    """Return the variable that a field's value came from."""
    ours = PREFIX + field.upper()
    if ours in os.environ:
        return ours
    for name, target in SELDON_VARIABLES.items():
        if target == field and os.environ.get(name):
            return name
    argument = "load_path" if field == "model" else field
    is_argument = argument in PARAMETER_TYPES and os.environ.get(PARAMETERS)
    return f"{PARAMETERS}: {argument}" if is_argument else ours


def _format_default(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
