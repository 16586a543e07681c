"""Text of a pipeline: split into passes and options, and options converted to the types of their fields."""

from __future__ import annotations

import math
import re
import types
from typing import Any, Literal, Union, get_args, get_origin

from netcut_fx.errors import PassError

_OPENING, _CLOSING = "({[", ")}]"
_SPECIAL = frozenset('(){}[],="\\')


def read_steps(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Split ``a,b{x=1,y=(2,3)}`` into ``[("a", []), ("b", [("x", "1"), ("y", "(2,3)")])]``.

    Raises
    ------
    PassError
        If the text is empty or a bracket, quote or ``=`` is missing.
    """
    if not text.strip():
        raise PassError("the pipeline is empty; give passes such as fold-batch-norm,simplify,dead-code")
    return [_read_step(step, text) for step in _split(text, text)]


def parse_option(text: str, kind: Any, where: str) -> Any:
    """Convert `text` to `kind`, the annotation of a dataclass field.

    Raises
    ------
    PassError
        Naming `where`, the text and what was wanted.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    plain = _unquoted(text)
    if origin is Literal:
        for choice in arguments:
            if str(choice) == plain:
                return choice
        raise PassError(f"{where} cannot be {text!r}; use one of {', '.join(map(str, arguments))}")
    if origin in (Union, types.UnionType):
        if type(None) in arguments and plain == "none":
            return None
        return parse_option(text, next(a for a in arguments if a is not type(None)), where)
    if origin is tuple:
        return _parse_tuple(plain, arguments, where)
    if kind is bool:
        if plain.lower() in ("true", "false"):
            return plain.lower() == "true"
        raise PassError(f"{where} cannot be {text!r}; use true or false")
    if kind is int:
        return _number(plain, int, "a whole number", where)
    if kind is float:
        value = _number(plain, float, "a number", where)
        if not math.isfinite(value):
            raise PassError(f"{where} cannot be {text!r}; give a finite number")
        return value
    if kind is str:
        return plain
    raise PassError(f"{where} cannot be given as text (its type is {kind}); build the pass in Python")


def format_option(value: Any) -> str:
    """Text that `parse_option` converts back to `value`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        parts = [format_option(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
        return "x".join(parts) if parts and all(part.isdigit() for part in parts) else f"({','.join(parts)})"
    text = str(value)
    if isinstance(value, str) and (not text or text == "none" or _must_be_quoted(text)):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _read_step(step: str, whole: str) -> tuple[str, list[tuple[str, str]]]:
    name, brace, rest = step.strip().partition("{")
    name = name.strip()
    if not name:
        raise PassError(f"a pass has no name in the pipeline {whole!r}; separate passes with single commas")
    if not brace:
        return name, []
    if not rest.endswith("}"):
        raise PassError(
            f"text follows the options of pass {name!r} in the pipeline {whole!r}; put a comma after the }}"
        )
    options: list[tuple[str, str]] = []
    inside = rest[:-1]
    for part in _split(inside, whole) if inside.strip() else []:
        option, equals, value = part.partition("=")
        if not equals or not option.strip() or not value.strip():
            raise PassError(f"{part.strip()!r} is no option of pass {name!r}; write {name}{{option=value}}")
        options.append((option.strip(), value.strip()))
    return name, options


def _split(text: str, whole: str) -> list[str]:
    """Split at the commas outside brackets and quotes."""
    parts, start, open_brackets, quoted, escaped = list[str](), 0, list[str](), False, False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = character == "\\", character != '"'
        elif character == '"':
            quoted = True
        elif character in _OPENING:
            open_brackets.append(_CLOSING[_OPENING.index(character)])
        elif character in _CLOSING:
            if not open_brackets or open_brackets.pop() != character:
                raise PassError(f"unexpected {character!r} at character {index + 1} of {text!r}; balance the brackets")
        elif character == "," and not open_brackets:
            parts.append(text[start:index])
            start = index + 1
    if quoted or open_brackets:
        missing = '"' if quoted else open_brackets[-1]
        raise PassError(f"a closing {missing!r} is missing in the pipeline {whole!r}")
    return [*parts, text[start:]]


def _parse_tuple(text: str, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    inner = text[1:-1] if text[:1] in ("(", "[") and text[-1:] in (")", "]") else text
    separator = "," if "," in inner or "x" not in inner else "x"
    parts = [part.strip() for part in inner.split(separator) if part.strip()]
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        kinds: list[Any] = [arguments[0]] * len(parts)
    elif len(parts) == len(arguments):
        kinds = list(arguments)
    else:
        raise PassError(f"{where} cannot be {text!r}; give {len(arguments)} values, as in 256x128")
    return tuple(parse_option(part, kind, where) for part, kind in zip(parts, kinds, strict=True))


def _number(text: str, kind: type, wanted: str, where: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise PassError(f"{where} cannot be {text!r}; give {wanted}") from None


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def _must_be_quoted(text: str) -> bool:
    return any(character in _SPECIAL or character.isspace() for character in text)
