"""Calls that `torch.export` does not look into: leaf modules and wrapped functions, as one custom operator.

While a model is exported, ``forward`` of each leaf module is replaced, on the instance, by a call of
``netcut_fx::opaque_call(tensors, number)``. The graph then holds one node for it, and which module or function was
called, with which arguments around the tensors, is noted under the number. Shapes of results come from the real module,
run on fake tensors (torch's tensors without storage, whose sizes may be symbols), with fake weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._guards import detect_fake_mode

from netcut_fx.example_inputs import find_tensors, replace_tensors
from netcut_fx.leaf_rules import LeafRule
from netcut_fx.modes import noting_mode
from netcut_fx.symbolic import wrapped

#: How to get at one tensor of a result: keys from the outside in.
Way = tuple[Any, ...]


@dataclass
class OpaqueCall:
    """One call of a leaf.

    Parameters
    ----------
    target : str or callable
        Path of the module, or the function.
    args, kwargs
        What it was called with, tensors included.
    ways : tuple of tuples
        For each tensor of the result, the way to it; ``((),)`` where the result is one tensor.
    """

    target: str | Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any = None
    ways: tuple[Way, ...] = ()

    def arguments(self, nodes: Sequence[fx.Node]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments with `nodes` in place of the tensors."""
        remaining = iter(nodes)
        return replace_tensors((self.args, self.kwargs), lambda _: next(remaining))


class OpaqueCalls:
    """The calls of one export, by number.

    Parameters
    ----------
    modules : mapping
        The leaf modules by path, as they are before the export.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.calls: list[OpaqueCall] = []
        # The export replaces the weights of the model, so what the shapes are computed with shares only the tensors.
        self._modules = {path: _copy_with(module, lambda tensor: tensor) for path, module in modules.items()}
        self._fake_modules: dict[str, nn.Module] = {}
        self._fake_mode: Any = None

    def call(self, target: str | Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the operator in place of `target`."""
        made = OpaqueCall(target, args, kwargs)
        self.calls.append(made)
        results = iter(_opaque_call(list(find_tensors((args, kwargs))), len(self.calls) - 1))
        return replace_tensors(made.result, lambda _: next(results))

    def fake(self, tensors: list[Tensor], number: int) -> list[Tensor]:
        """Make tensors like those that call `number` yields."""
        made = self.calls[number]
        # Copies: what works in place must not touch the arguments.
        inputs = iter([_like(tensor) for tensor in tensors])
        args, kwargs = replace_tensors((made.args, made.kwargs), lambda _: next(inputs))
        with _plain_modules():
            if isinstance(made.target, str):
                module = self._fake_module(made.target, detect_fake_mode(tensors))
                made.result = module(*args, **kwargs)
            else:
                made.result = made.target(*args, **kwargs)
        made.ways = tuple(_ways(made.result, ()))
        if not made.ways:
            name = made.target if isinstance(made.target, str) else made.target.__name__
            raise TypeError(f"leaf {name} yields {type(made.result).__name__}, which holds no tensor")
        return [_like(tensor) for tensor in find_tensors(made.result)]

    def _fake_module(self, path: str, fake_mode: Any) -> nn.Module:
        """The module at `path` with fake weights, made once."""
        if fake_mode is not self._fake_mode:
            self._fake_mode = fake_mode
            self._fake_modules.clear()
        if path not in self._fake_modules:
            self._fake_modules[path] = _copy_with(
                self._modules[path], lambda tensor: fake_mode.from_tensor(tensor, static_shapes=True)
            )
        return self._fake_modules[path]


_current: ContextVar[OpaqueCalls] = ContextVar("opaque_calls")


@torch.library.custom_op("netcut_fx::opaque_call", mutates_args=())
def _opaque_call(tensors: list[Tensor], number: int) -> list[Tensor]:
    raise NotImplementedError("stands for a call only while a model is exported")


@_opaque_call.register_fake
def _(tensors: list[Tensor], number: int) -> list[Tensor]:
    return _current.get().fake(tensors, number)


#: What a node of the exported graph calls.
OPAQUE_CALL: Any = torch.ops.netcut_fx.opaque_call.default


@contextmanager
def opaque_leaves(
    model: nn.Module, leaves: LeafRule, functions: Sequence[Callable[..., Any]]
) -> Generator[OpaqueCalls]:
    """While this holds, leaf modules of `model` and `functions` call the operator; afterwards all is as before."""
    modules = _outermost({path: m for path, m in model.named_modules() if path and leaves.is_leaf(m, path)})
    opaque = OpaqueCalls(modules)
    token = _current.set(opaque)
    before = {path: module.__dict__.get("forward") for path, module in modules.items()}
    try:
        for path, module in modules.items():
            module.__dict__["forward"] = _replacement(opaque, path, module.forward)
        with wrapped(functions, opaque.call):
            yield opaque
    finally:
        for path, module in modules.items():
            module.__dict__.pop("forward", None)
            if before[path] is not None:
                module.__dict__["forward"] = before[path]
        _current.reset(token)


def _replacement(opaque: OpaqueCalls, path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not any(True for _ in find_tensors((args, kwargs))):
            return forward(*args, **kwargs)
        return opaque.call(path, args, kwargs)

    return call


def _outermost(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Leave out leaves inside leaves, which nobody calls."""

    def inside(path: str) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:end]) in modules for end in range(1, len(parts)))

    return {path: module for path, module in modules.items() if not inside(path)}


def _copy_with(module: nn.Module, replace: Callable[[Tensor], Tensor]) -> nn.Module:
    """Copy `module` with other tensors."""
    held = (t for part in module.modules() for t in (*part._parameters.values(), *part._buffers.values()))  # pyright: ignore[reportPrivateUsage]
    return copy.deepcopy(module, {id(tensor): replace(tensor) for tensor in held if tensor is not None})


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def _ways(value: Any, way: Way) -> Generator[Way]:
    """The way to each tensor, in the order of `find_tensors`."""
    if isinstance(value, Tensor):
        yield way
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            yield from _ways(part, (*way, index))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _ways(part, (*way, key))


#: As they are when nobody traces.
_MODULE_CALL, _MODULE_GETATTR = nn.Module.__call__, nn.Module.__getattr__


@contextmanager
def _plain_modules() -> Generator[None]:
    """While this holds, calling a module is not recorded, although a model is being exported."""
    replaced = nn.Module.__call__, nn.Module.__getattr__
    nn.Module.__call__, nn.Module.__getattr__ = _MODULE_CALL, _MODULE_GETATTR
    try:
        with noting_mode(False):
            yield
    finally:
        nn.Module.__call__, nn.Module.__getattr__ = replaced
