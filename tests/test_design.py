"""The module plan of docs/design.md, held against the imports."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

# From the top; each level may import the ones below it, and modules of one level are strangers.
PLAN = re.search(
    r"^    (__main__ .*\n(?:    .*\n)+)", (ROOT / "docs/design.md").read_text(), re.MULTILINE
)[1]
LEVELS = [re.findall(r"^ *([a-z_0-9 ]+?)(?:   |$)", line)[0].split() for line in PLAN.splitlines()]

DOORS = {
    "flask": {"admin", "app", "routes", "server"},
    "werkzeug": {"app", "arrival", "routes"},
    "gunicorn": {"server"},
    "prometheus_client": {"metrics"},
    "pydantic_settings": {"settings"},
    "pydantic": {"settings"},
    "orjson": {"wire"},
    "sqlite3": {"feedback"},
    "numba": {"compiled", "walk"},
    "typer": {"__main__"},
    "rich": {"__main__"},
}


def imports(path):
    """Return the names of all modules that a file imports; '.x' for one of its own package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level and not node.module:
            found |= {f".{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + node.module)
    return found


def modules():
    return {path.stem: imports(path) for path in (ROOT / "service").glob("*.py")}


def test_every_module_has_its_level():
    planned = {name for level in LEVELS for name in level}
    assert planned == modules().keys() - {"__init__"}


def test_modules_import_only_from_below():
    depth = {name: i for i, level in enumerate(LEVELS) for name in level}
    wrong = [
        (name, other)
        for name, found in modules().items()
        for other in found
        if other.startswith(".") and other[1:] in depth and depth[other[1:]] <= depth[name]
    ]
    assert wrong == []


def test_each_library_has_one_door():
    wrong = [
        (name, library)
        for name, found in modules().items()
        for library, doors in DOORS.items()
        if any(other.split(".")[0] == library for other in found) and name not in doors
    ]
    assert wrong == []


def test_the_service_never_imports_training():
    assert not any("training" in other for found in modules().values() for other in found)
