"""Check every module against the import rule of docs/internals/design.md.

A package may import those to its right, and skip some; nothing imports to its left:

    __main__ -> commands -> doctor -> app -> server -> web -> bulk, components
    -> serving, telemetry -> model, state, protocols, tables -> vocabulary
"""

import ast
from pathlib import Path

SERVICE = Path(__file__).parents[2] / "service"

FLOORS = {
    "__main__": 9,
    "commands": 8,
    "doctor": 7,
    "app": 6,
    "server": 5,
    "web": 4,
    **dict.fromkeys(("components", "bulk"), 3),
    **dict.fromkeys(("serving", "telemetry"), 2),
    **dict.fromkeys(("model", "state", "protocols", "tables"), 1),
    **dict.fromkeys(
        (
            "rows",
            "errors",
            "settings",
            "truths",
            "cells",
            "dialects",
            "files",
            "probe",
            "threshold_choice",
            "capacity",
        ),
        0,
    ),
}

# Who may import a library: packages, or modules where only some of a package need it.
LIBRARIES = {
    "flask": {"web", "app", "server"},
    "werkzeug": {"web", "app", "protocols.seldon.envelope"},
    "gunicorn": {"server"},
    "prometheus_client": {"telemetry"},
    "pydantic_settings": {"settings"},
    "jinja2": set(),  # by Flask only
    "markupsafe": {"web.console"},
    "pydantic": {"settings"},
    "orjson": {"protocols.codec"},
    "sqlite3": {"state"},
    "numba": {"model"},
    "sklearn": set(),
    "joblib": {"model.file"},
    "scipy": set(),
    "pickle": set(),
    "typer": {"__main__", "commands"},
    "rich": {"commands"},
    "pandas": {"tables"},
    "pyarrow": {"tables", "bulk"},
    "fsspec": {"tables.places"},
    "distributed": {"bulk.cluster"},
}


def modules():
    """Yield each module's dotted name below `service`, and the names of all that it imports."""
    for path in SERVICE.rglob("*.py"):
        parts = path.relative_to(SERVICE).with_suffix("").parts
        if parts[-1] != "__init__":
            yield ".".join(parts), set(imports(ast.parse(path.read_text()), parts))


def imports(tree, parts):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            package = [*parts[: -node.level], *(node.module or "").split(".")]
            base = ".".join(["service", *filter(None, package)])
            yield from (f"{base}.{alias.name}" if not node.module else base for alias in node.names)


def room(name):
    """Return the package of a module, or the module's own name where it is in none."""
    return name.removeprefix("service.").split(".")[0]


def own(found):
    return {name for name in found if name.startswith("service.") and room(name) in FLOORS}


def test_no_module_imports_from_a_higher_level():
    climbing = [
        (name, other)
        for name, found in modules()
        for other in found & own(found)
        if room(other) != room(name) and FLOORS[room(other)] >= max(FLOORS[room(name)], 1)
    ]
    assert climbing == []


def test_each_library_is_imported_only_in_its_package():
    wrong = [
        (name, library)
        for name, found in modules()
        for library, allowed in LIBRARIES.items()
        if any(other.split(".")[0] == library for other in found)
        and not any(name == one or name.startswith(f"{one}.") for one in allowed)
    ]
    assert wrong == []


def test_the_service_never_imports_training():
    assert not [name for name, found in modules() if any("training" in one for one in found)]


def test_packages_have_an_empty_init_and_at_most_14_modules():
    faces = [path for path in SERVICE.rglob("__init__.py") if path.parent != SERVICE]
    assert not [path for path in faces if path.read_text()]
    assert not [path for path in faces if len(list(path.parent.glob("*.py"))) - 1 > 14]
