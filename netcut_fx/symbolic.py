"""Tracing by torch.fx: the model runs on proxies, so Python's control flow is followed once.

torch.fx searches all names of a model whenever a parameter or buffer is used; here they are looked up in tables, so
that time grows linearly with the network.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from netcut_fx.example_inputs import Examples, plain_result
from netcut_fx.leaf_rules import LeafRule
from netcut_fx.modes import noting_mode


class SymbolicTracer(fx.Tracer):
    """torch.fx's tracer with one flat placeholder per tensor, our rule of leaf modules, and tables of names.

    Parameters
    ----------
    leaves : LeafRule
    wrapped_functions : sequence of callables
        Each call of one becomes one node.
    examples : Examples
        How ``forward`` is called.
    """

    def __init__(self, leaves: LeafRule, wrapped_functions: Sequence[Callable[..., Any]], examples: Examples) -> None:
        super().__init__()
        self._leaves = leaves
        self._wrapped_functions = wrapped_functions
        self._examples = examples
        self._names: dict[int, str] = {}
        self._constants = 0

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace `root` as the examples call it."""
        held = (*root.named_modules(), *root.named_buffers(), *root.named_parameters())
        self._names = {id(value): name for name, value in held}
        with wrapped(self._wrapped_functions, self._create_call):
            return super().trace(root, concrete_args)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Say whether `m` stays whole."""
        return self._leaves.is_leaf(m, module_qualified_name)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """Make the placeholders; return how to call ``forward`` with them."""
        inputs = [self.create_proxy("placeholder", name, (), {}) for name in self._examples.names]

        def run() -> Any:
            with noting_mode(True):
                return plain_result(self._examples.call(functools.partial(root_fn, self.root), inputs))

        return run, []

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Parameters become one node each; buffers stay tensors until an operation uses them."""
        if not isinstance(attr_val, nn.Parameter) or id(attr_val) not in self._names:
            return attr_val
        name = self._names[id(attr_val)]
        if name not in parameter_proxy_cache:
            parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
        return parameter_proxy_cache[name]

    def create_arg(self, a: Any) -> Any:
        """Look up what belongs to the model; a tensor that does not is kept with it as a constant."""
        if isinstance(a, (Tensor, nn.Module)) and not isinstance(a, fx.Proxy):
            name = self._names.get(id(a))
            if name is None and type(a) is Tensor:
                name = self.tensor_attrs.get(a) or self._keep(a)
            if name is not None:
                return self.create_node("get_attr", name, (), {})
        return super().create_arg(a)

    def _keep(self, tensor: Tensor) -> str:
        while hasattr(self.root, name := f"_tensor_constant{self._constants}"):
            self._constants += 1
        self.tensor_attrs[tensor] = name
        setattr(self.root, name, tensor)
        return name

    def _create_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found: list[fx.Proxy] = []
        map_aggregate((args, kwargs), lambda value: found.append(value) if isinstance(value, fx.Proxy) else None)  # pyright: ignore[reportArgumentType]
        return self.create_proxy("call_function", function, args, kwargs) if found else function(*args, **kwargs)


@contextmanager
def wrapped(
    functions: Sequence[Callable[..., Any]], call: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
) -> Generator[None]:
    """While this holds, ``f(*args, **kwargs)`` is ``call(f, args, kwargs)`` for each of `functions`.

    They are replaced under every name that a loaded Python module has for them: ``from x import f as g`` included.
    """
    places: list[tuple[dict[str, Any], str, Any]] = []
    if functions:
        by_id = {id(function): function for function in functions}
        for module in list(sys.modules.values()):
            names: dict[str, Any] = getattr(module, "__dict__", {})
            places += [(names, key, value) for key, value in list(names.items()) if id(value) in by_id]
    try:
        for names, key, function in places:
            names[key] = _redirected(function, call)
        yield
    finally:
        for names, key, function in places:
            names[key] = function


def _redirected(function: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def redirected(*args: Any, **kwargs: Any) -> Any:
        return call(function, args, kwargs)

    return redirected


def trace_symbolically(
    model: nn.Module,
    examples: Examples,
    leaves: LeafRule,
    wrapped_functions: Sequence[Callable[..., Any]],
    name: str,
) -> fx.GraphModule:
    """Trace `model` as it is, in its present mode; whatever cannot be traced raises what torch.fx raises."""
    tracer = SymbolicTracer(leaves, wrapped_functions, examples)
    graph = tracer.trace(model)
    return fx.GraphModule(model, graph, name)
