"""What people call their model with, nested in any way, as flat tensors: one placeholder for each in the graph."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from netcut_fx.errors import TraceError

#: A tensor, or tensors nested in tuples, lists and mappings.
Nested = Any


@dataclass(frozen=True)
class Examples:
    """One call of a model.

    Parameters
    ----------
    args : tuple
        Positional arguments, tensors and constants nested in any way.
    kwargs : dict
        Keyword arguments.
    names : tuple of str
        A name for each tensor, in the order in which `tensors` has them: the argument's name, and the way into it.
    tensors : tuple of Tensor
        All tensors.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]

    def call(self, function: Callable[..., Any], values: Sequence[Any]) -> Any:
        """Call `function` as in the example, with `values` in place of the tensors."""
        remaining = iter(values)
        args = [replace_tensors(part, lambda _: next(remaining)) for part in self.args]
        kwargs = {key: replace_tensors(part, lambda _: next(remaining)) for key, part in self.kwargs.items()}
        return function(*args, **kwargs)


def bind_examples(
    model: nn.Module, example_inputs: Nested, concrete_args: Mapping[str, Any] | None, label: str
) -> Examples:
    """Match example inputs with the arguments of ``model.forward``.

    Parameters
    ----------
    model : torch.nn.Module
    example_inputs : Tensor, sequence or mapping
        A tensor is the only argument, a sequence holds the positional arguments, a mapping the keyword arguments.
    concrete_args : mapping, optional
        Constants by name; example inputs that are given by position fill the other arguments.
    label : str
        What errors call the model.

    Raises
    ------
    TraceError
        If the arguments do not fit ``forward``, or none of them is a tensor.
    """
    constants = dict(concrete_args or {})
    signature = inspect.signature(model.forward)
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    free = [p.name for p in positional if p.name not in constants]
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if isinstance(example_inputs, Mapping):
        given, rest = {str(key): value for key, value in example_inputs.items()}, ()
    else:
        values = tuple(example_inputs)
        given, rest = dict(zip(free, values, strict=False)), values[len(free) :]
    try:
        bound = _bind(signature, positional, {**given, **constants}, rest)
    except TypeError as error:
        raise TraceError(
            f"cannot trace {label}: forward{_without_types(signature)} cannot be called with "
            f"{_listed(given, rest, constants)}: {error}; "
            "pass one tensor per argument, and what is no tensor as concrete_args"
        ) from error
    names, tensors = _flat_names(bound), tuple(find_tensors((bound.args, bound.kwargs)))
    if not tensors:
        raise TraceError(f"cannot trace {label}: there is no tensor among the example inputs; pass at least one")
    return Examples(bound.args, bound.kwargs, names, tensors)


def replace_tensors(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Rebuild nested tuples, lists and mappings with other tensors; all else stays."""
    if isinstance(value, Tensor):
        return replace(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(replace_tensors(part, replace) for part in value))
    if type(value) in (tuple, list):
        return type(value)(replace_tensors(part, replace) for part in value)
    if type(value) is dict:
        return {key: replace_tensors(part, replace) for key, part in value.items()}
    return value


def find_tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in `value`, in the order in which `replace_tensors` meets them."""
    found: list[Tensor] = []
    replace_tensors(value, found.append)
    yield from found


def plain_result(value: Any) -> Any:
    """What a model returns, as plain tuples, lists and dicts; fields of result classes that are None are left out."""
    if isinstance(value, Mapping):
        whole = type(value) is dict
        return {key: plain_result(part) for key, part in value.items() if whole or part is not None}
    if isinstance(value, (tuple, list)):
        parts = [plain_result(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        return {key: plain_result(part) for key, part in held.items() if part is not None}
    return value


def _bind(
    signature: inspect.Signature, positional: Sequence[inspect.Parameter], named: dict[str, Any], rest: tuple[Any, ...]
) -> inspect.BoundArguments:
    """Bind by name; what follows by position (``*inputs``) needs everything before it by position as well."""
    only_by_position = [p.name for p in positional if p.kind is p.POSITIONAL_ONLY]
    in_front = [p.name for p in positional] if rest else only_by_position
    args = [named.pop(name) for name in in_front if name in named]
    return signature.bind(*args, *rest, **named)


def _flat_names(bound: inspect.BoundArguments) -> tuple[str, ...]:
    """A name for each tensor, in the order of ``bound.args`` and ``bound.kwargs``."""
    variadic = {p.name for p in bound.signature.parameters.values() if p.kind is p.VAR_KEYWORD}
    found: list[str] = []
    for name, value in bound.arguments.items():
        if name in variadic:
            for key, part in value.items():
                _walk_names(str(key), part, found)
        else:
            _walk_names(name, value, found)
    return tuple(found)


def _walk_names(name: str, value: Any, found: list[str]) -> None:
    if isinstance(value, Tensor):
        base = re.sub(r"\W", "_", name)
        candidate, count = base, 1
        while candidate in found:
            count += 1
            candidate = f"{base}_{count}"
        found.append(candidate)
    elif isinstance(value, (tuple, list)):
        keys: Sequence[Any] = getattr(value, "_fields", range(len(value)))
        for key, part in zip(keys, value, strict=True):
            _walk_names(f"{name}_{key}", part, found)
    elif isinstance(value, dict):
        for key, part in value.items():
            _walk_names(f"{name}_{key}", part, found)


def _without_types(signature: inspect.Signature) -> str:
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def _listed(given: Mapping[str, Any], rest: Sequence[Any], constants: Mapping[str, Any]) -> str:
    extra = f" and {len(rest)} more" if rest else ""
    fixed = f", concrete_args {', '.join(constants)}" if constants else ""
    return f"examples for {', '.join(given) or 'nothing'}{extra}{fixed}"
