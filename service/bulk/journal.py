"""Which files of an output folder are done: a hidden file, a line of JSON for each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import BadInput
from ..tables.places import STDIN, find_filesystem, is_address
from .scorer import Found, Totals

NAME = ".isoserve-score.jsonl"


class Journal:
    """What is done in an output folder, for `--resume`."""

    def __init__(self, folder: str, described: dict[str, Any], resume: bool) -> None:
        """Make a journal, or with `resume` take up the one that is there; nothing is written.

        Raises:
            BadInput: the one that is there is about another model or other options.
        """
        self._path = f"{folder.rstrip('/')}/{NAME}"
        self._done: dict[str, dict[str, Any]] = {}
        self._lines = [json.dumps(described)]
        self._begun = False
        if resume and (found := self._read()):
            if found[0] != described:
                other = [name for name in described if found[0].get(name) != described[name]]
                raise BadInput(
                    f"{folder} was begun with another {', '.join(other)}; use the same, or write "
                    "all of it anew without --resume"
                )
            self._done = {line["target"]: line for line in found[1:]}
            self._lines += [json.dumps(line) for line in self._done.values()]

    def begin(self) -> None:
        """Write what is known so far in place of the journal that is there, if there is one."""
        self._write()

    def is_done(self, place: str, target: str) -> bool:
        """Return whether a table was scored as it is now, and the file is still there."""
        line = self._done.get(_name(target))
        if line is None or line["input"] != _state(place) or _state(target) is None:
            self._done.pop(_name(target), None)
            return False
        return True

    def totals(self, targets: Sequence[str]) -> Totals:
        """Return what was counted in those of the files that are done."""
        totals = Totals()
        for target in targets:
            if line := self._done.get(_name(target)):
                totals.add(_load(line["totals"]))
        return totals

    def add(self, place: str, target: str, totals: Totals) -> None:
        """Note that a file is done; BadInput if that cannot be written."""
        line = {"target": _name(target), "input": _state(place), "totals": _dump(totals)}
        self._lines.append(json.dumps(line, default=str))
        self._write()

    def _read(self) -> list[Any]:
        try:
            if is_address(self._path):
                filesystem, path = find_filesystem(self._path)
                text = filesystem.cat_file(path).decode()
            else:
                text = Path(self._path).read_text(encoding="utf-8")
        except OSError:
            return []
        found = []
        with suppress(ValueError):  # a line that was being written when the process was killed
            for line in text.splitlines():
                found.append(json.loads(line))
        return found

    def _write(self) -> None:
        """Write the lines; after the first time a local file takes the last one only."""
        text = "".join(f"{line}\n" for line in self._lines)
        try:
            if is_address(self._path):
                filesystem, path = find_filesystem(self._path)
                filesystem.pipe_file(path, text.encode())
                return
            file = Path(self._path)
            file.parent.mkdir(parents=True, exist_ok=True)
            if self._begun:
                text = f"{self._lines[-1]}\n"
            with file.open("a" if self._begun else "w", encoding="utf-8") as lines:
                lines.write(text)
            self._begun = True
        except OSError as error:
            raise BadInput(f"{self._path} cannot be written ({error.strerror or error})") from error


def _name(target: str) -> str:
    return target.split("://", 1)[-1]


def _state(place: str) -> Any:
    """Return what tells a file from a later one of its name: size and time; None if it is gone."""
    if place == STDIN:
        return None
    try:
        if is_address(place):
            filesystem, path = find_filesystem(place)
            return [filesystem.size(path), None]
        found = Path(place).stat()
        return [found.st_size, found.st_mtime_ns]
    except OSError:
        return None


def _dump(totals: Totals) -> dict[str, Any]:
    return {
        "rows": totals.rows,
        "outliers": totals.outliers,
        "rejected": totals.rejected,
        "odd": [[*key, number] for key, number in totals.odd.items()],
        "top": [list(found) for found in totals.top],
    }


def _load(found: dict[str, Any]) -> Totals:
    return Totals(
        found["rows"],
        found["outliers"],
        found["rejected"],
        Counter({(column, kind): number for column, kind, number in found["odd"]}),
        [
            Found(score, label, row, tuple((name, cell) for name, cell in reasons))
            for score, label, row, reasons in found["top"]
        ],
    )
