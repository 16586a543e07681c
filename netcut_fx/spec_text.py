"""How SPEC strings are written: ``head?key=value&key="text"``, and the hint after a name that does not exist."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from urllib.parse import unquote

from netcut_fx.errors import SpecError

#: A value written in a query.
Value = None | bool | int | float | str

_WORDS: Mapping[str, Value] = MappingProxyType({"none": None, "null": None, "true": True, "false": False})
_INTEGER = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.?\d+)([eE][+-]?\d+)?")
_PAIR = re.compile(r"""([^=&]*)(?:=("[^"]*"|'[^']*'|[^&]*))?(?:&|$)""")


def split_spec(spec: str) -> tuple[str, dict[str, Value]]:
    """Split ``head?query`` and read the query's values.

    Parameters
    ----------
    spec : str
        For instance ``"torchvision.models:mobilenet_v2?weights=none"``.

    Returns
    -------
    head : str
    options : dict
        ``none``, ``true``, ``false``, integers and decimals become Python values; everything else, and whatever stands
        in quotes, stays text. ``%26`` and the like are decoded outside quotes.

    Raises
    ------
    SpecError
        For a pair without ``=``, an empty or doubled name.
    """
    head, _, query = spec.partition("?")
    options: dict[str, Value] = {}
    position = 0
    while position < len(query):
        match = _PAIR.match(query, position)
        if match is None or match[2] is None or not match[1].strip():
            raise SpecError(
                f"cannot read '{query[position:]}' in '{spec}': options are written name=value, joined by '&'; "
                "put quotes around a value that contains '&'"
            )
        key = unquote(match[1].strip())
        if key in options:
            raise SpecError(f"option '{key}' is given twice in '{spec}'; keep one")
        options[key] = parse_value(match[2])
        position = match.end()
    return head, options


def parse_value(text: str) -> Value:
    """One query value: ``none``/``true``/``false`` (any case), int, float, else text; quoted text stays text."""
    stripped = text.strip()
    if len(stripped) >= 2 and stripped[0] == stripped[-1] and stripped[0] in "\"'":
        return stripped[1:-1]
    if stripped.lower() in _WORDS:
        return _WORDS[stripped.lower()]
    if _INTEGER.fullmatch(stripped):
        return int(stripped)
    if _DECIMAL.fullmatch(stripped):
        return float(stripped)
    return unquote(stripped)


def did_you_mean(name: str, choices: Iterable[str], *, most: int = 12) -> str:
    """Say what follows "there is no `name`": the nearest choices, or else all of them if they are few.

    Returns
    -------
    str
        ``"did you mean 'a' or 'b'?"``, ``"there is: a, b, c"``, or ``"there is none"``.
    """
    known = sorted({str(choice) for choice in choices})
    folded = {choice.casefold(): choice for choice in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)
    likeness = [difflib.SequenceMatcher(None, candidate, name.casefold()).ratio() for candidate in close]
    # A near miss beside an obvious one only distracts.
    near = [folded[candidate] for candidate, r in zip(close, likeness, strict=True) if r > likeness[0] - 0.15]
    if near:
        return "did you mean " + " or ".join(f"'{n}'" for n in near) + "?"
    if not known:
        return "there is none"
    rest = f" and {len(known) - most} more" if len(known) > most else ""
    return f"there is: {', '.join(known[:most])}{rest}"


def one_line(error: BaseException, *, longest: int = 300) -> str:
    """Put the text of an error on one line, led by its type: ``RuntimeError: out of range``."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= longest else text[: longest - 3] + "..."
