"""Read the options in the query of a request."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from ..errors import BadInput, nearest
from ..protocols.seldon.envelope import FIELD
from .request import Request

MOST = 999_999
"""Largest number that an option may have."""

_KNOWN = ("scores", "explain", "pvalues", FIELD)
"""Known options; others are ignored, unless one looks like a misspelt option."""

_MISSPELT = 0.85
"""Least similarity of a misspelt option: `score` has 0.91, `explian` 0.86; `plain` has 0.83."""

_SWITCH = {"1": True, "true": True, "": False, "0": False, "false": False}

_Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Options:
    """What a request asks for beside the labels of its rows."""

    scores: bool = False
    explain: int = 0
    """How many features to name for each outlier."""
    pvalues: bool = False


_NONE = Options()


def read_options(request: Request) -> Options:
    """Return the options of a request; BadInput names one that is malformed."""
    if not request.query:
        return _NONE
    sent = _parse(request)
    return Options(_switch(sent, "scores"), _number(sent, "explain"), _switch(sent, "pvalues"))


def refuse_options(request: Request, advice: Mapping[str, str]) -> None:
    """Refuse options that this route does not have; `advice` says what to do instead of each."""
    sent = _parse(request) if request.query else []
    for name, instead in advice.items():
        if _SWITCH.get(_option(sent, name).lower(), True):
            raise BadInput(f"{name} is no option of {request.path}; {instead}")


def _parse(request: Request) -> _Pairs:
    return parse_qsl(request.query.decode(errors="replace"), keep_blank_values=True)


def _switch(sent: _Pairs, name: str) -> bool:
    text = _option(sent, name)
    if text.lower() not in _SWITCH:
        raise BadInput(f"{name} is 1 or 0, not {text[:20]!r}")
    return _SWITCH[text.lower()]


def _number(sent: _Pairs, name: str) -> int:
    text = _option(sent, name)
    if not re.fullmatch("[0-9]+", text):
        raise BadInput(f"{name} is a whole number, not {text[:20]!r}")
    if len(text) > len(str(MOST)):
        raise BadInput(f"{name} has at most {len(str(MOST))} digits, not {len(text):,}")
    return int(text)


def _option(sent: _Pairs, name: str) -> str:
    """Return an option, "0" by default; BadInput if it is repeated or misspelt."""
    given = [value for key, value in sent if key == name]
    if len(given) > 1:
        raise BadInput(f"{name} is given {len(given)} times")
    if given:
        return given[0]
    for key, _ in sent:
        if key not in _KNOWN and (hint := nearest(key.lower(), [name], _MISSPELT)):
            raise BadInput(f"the query has {key[:40]!r}, which is no option{hint}")
    return "0"
