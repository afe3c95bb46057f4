"""Write docs/reference.md from the code: python -m tests.support.reference."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from service.__main__ import cli
from service.settings import LABELS, PARAMETER_TYPES, PARAMETERS, PREFIX, SELDON_VARIABLES
from service.settings import describe_settings as settings
from service.telemetry.metrics import METRICS
from service.web.openapi.document import describe

PAGE = Path(__file__).parents[2] / "docs/reference.md"

TEXT = """\
# Reference

`python -m tests.support.reference` writes this page from the code. Do not edit it.

## Settings

Settings are environment variables, read once at the start. `python -m service settings` prints this
table. A wrong value ends the start with a sentence that names the variable.

{settings}

Variables that Seldon Core sets are honoured where ours is not set:

{seldon}

Others of Seldon's variables [have no effect](guide/protocols.md#seldon-v1).

## Commands

`python -m service COMMAND`, or `isoserve COMMAND` where the wheel is installed, with the same
settings as the service. A failure ends with one sentence and the exit code 1. `isoserve COMMAND
--help` describes every option.

{commands}

## Routes

`GET /openapi.json` is the OpenAPI 3.1 document of these routes, and `GET /docs` shows it as a page.
`load`, `threshold` and `unload` exist only with `ISOSERVE_ADMIN_TOKEN`.

{routes}

## Metrics

`GET /metrics` shows them in Prometheus' text format. The metrics from `is_outlier` on have the
names and labels of Seldon's wrapper, so its dashboards keep working: the label `method` is
`predict` or `feedback`, and there is no `worker_id`. "The window" is the last `ISOSERVE_WINDOW`
rows with feedback. A figure that is not defined yet is absent.
[State](operate/state.md#what-is-promised) says how exact the counts are.

{metrics}
"""


def render() -> str:
    """Return the page for the current code."""
    return TEXT.format(
        settings=_table(("variable", "default", "meaning"), _settings()),
        seldon=_table(("Seldon's variable", "the same as"), _seldon()),
        commands=_table(("command", "what it does"), _commands(typer.main.get_command(cli))),
        routes=_table(("route", "what it does", "protocol"), _routes()),
        metrics=_table(("metric", "type", "meaning"), _metrics()),
    )


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heading = list(heading)
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _settings() -> Iterator[tuple[str, str, str]]:
    for name, default, meaning in settings():
        yield f"`{name}`", f"`{default}`" if default else "", meaning


def _seldon() -> Iterator[tuple[str, str]]:
    for name, field in SELDON_VARIABLES.items():
        yield f"`{name}`", f"`{PREFIX}{field.upper()}`"
    names = ", ".join(f"`{name}`" for name in PARAMETER_TYPES)
    ours = f"`{PREFIX}THRESHOLD`, `{PREFIX}OUTLIER_SHARE` and the folder of `{PREFIX}MODEL`"
    yield f"`{PARAMETERS}`", f"{names}: {ours}"
    yield f"`{LABELS}`", f"its `version`: `{PREFIX}PREDICTOR_VERSION`"


def _commands(command: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield each command of a group, as it is typed, with the first line of its help."""
    for part, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from _commands(child, f"{name}{part} ")
        else:
            options = [f" {_usage(parameter)}" for parameter in child.params]
            yield f"`{name}{part}{''.join(options)}`", child.help.splitlines()[0]


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return parameter.name.upper() if parameter.required else f"[{parameter.name.upper()}]"
    return f"[{parameter.opts[0]} {parameter.name.upper()}]"


def _routes() -> Iterator[tuple[str, str, str]]:
    """Yield each path with its methods; all methods of a path do the same."""
    for path, methods in describe("isoserve", "", [], with_admin=True)["paths"].items():
        operation = next(iter(methods.values()))
        route = f"`{', '.join(methods).upper()} {path}`"
        yield route, operation["summary"], operation["tags"][-1]


def _metrics() -> Iterator[tuple[str, str, str]]:
    for name, (kind, text) in METRICS.items():
        yield f"`{name}`", kind, text


if __name__ == "__main__":
    PAGE.write_text(render())
